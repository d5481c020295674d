"""``vilau encode``, ``decode`` and ``reconstruct``: the tokenizer's own results, in files."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.apps.conftest import Command
from tests.models import tiny
from vilau import load_tower
from vilau.apps.codes_file import read_codes
from vilau.data.media.pictures import read_images
from vilau.layers.pixels import to_float, to_uint8


def shown(path: Path) -> torch.Tensor:
    """uint8 ``(3, H, W)``."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@torch.inference_mode()
def test_encoding_and_decoding_are_the_tokenizers(
    vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"new/codes.{suffix}"
    code, printed, _ = vilau("encode", tower_folder, photos, "--out", out, "--batch-size", 2)
    assert code == 0
    assert printed == f"{out}: 3 images, 16 positions x 3 depths each\n"

    tower = load_tower(tower_folder)
    codes = tower.encode(read_images(sorted(photos.iterdir()), tiny.SIDE))
    content = read_codes(out)
    assert torch.equal(content.codes, codes)
    assert len(codes.unique()) > 5
    assert content.files == [str(photos / f"{name}.png") for name in "abc"]
    assert content.spec == tower.spec
    if suffix == "safetensors":
        assert load_file(out)["codes"].dtype == torch.int32

    assert vilau("decode", tower_folder, out, "--out", "all", "--batch-size", 2)[0] == 0
    code, printed, _ = vilau("decode", tower_folder, out, "--out", "first", "--upto", 1)
    assert (code, printed.split()) == (0, [f"first/{name}.png" for name in "abc"])
    for upto, folder in ((None, "all"), (1, "first")):
        for name, image in zip("abc", to_uint8(tower.decode(codes, upto=upto)), strict=True):
            assert torch.equal(shown(tmp_path / folder / f"{name}.png"), image)


def test_a_models_own_tower_decodes_what_the_tower_alone_encoded(
    vilau: Command, tower_folder: Path, model_folder: Path, photos: Path
) -> None:
    """tiny.vila_u holds tiny.tower; run folders stand for the model in them."""
    assert vilau("encode", tower_folder, photos / "a.png", "--out", "a.npz")[0] == 0
    run = model_folder.parent
    assert vilau("decode", run, "a.npz")[0] == 0
    assert vilau("encode", run, "--out", "b.npz", photos / "a.png")[0] == 0  # options between
    assert torch.equal(read_codes(Path("a.npz")).codes, read_codes(Path("b.npz")).codes)
    half = vilau("decode", run, "a.npz", "--dtype", "bfloat16", "--out", "half")
    assert half[0] == 0
    difference = shown(Path("half/a.png")).float() - shown(Path("decoded/a.png")).float()
    assert 0 < difference.abs().mean() < 3


def test_names_stay_apart(vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.open(photos / "b.png").save(tmp_path / "more/a.png")
    files = [photos / "a.png", tmp_path / "more/a.png"]
    vilau("encode", tower_folder, *files, "--out", "c.npz")
    vilau("decode", tower_folder, "c.npz", "--out", "d")
    assert sorted(path.name for path in Path("d").iterdir()) == ["a-2.png", "a.png"]
    assert not torch.equal(shown(Path("d/a.png")), shown(Path("d/a-2.png")))


def test_codes_of_another_tower_are_refused(
    vilau: Command, tower_folder: Path, other_tower: Path, photos: Path, tmp_path: Path
) -> None:
    vilau("encode", tower_folder, photos, "--out", "codes.npz")
    code, _, error = vilau("decode", other_tower, "codes.npz")
    assert code == 2
    assert "codes.npz was encoded with another tower (codebook " in error
    assert not Path("decoded").exists()
    assert vilau("decode", other_tower, "codes.npz", "--force")[0] == 0

    tiny.tower(patch_size=8).save(tmp_path / "coarse")
    code, _, error = vilau("decode", tmp_path / "coarse", "codes.npz", "--force")
    assert code == 2
    assert "holds codes with levels ((4, 4),), but this tower's are ((2, 2),)" in error


def test_broken_files_of_codes_are_told_in_a_sentence(
    vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path
) -> None:
    def refused(name: str, says: str) -> None:
        code, _, error = vilau("decode", tower_folder, name, "--out", "never")
        assert (code, error.count("\n")) == (2, 1), error
        assert says in error
        assert not Path("never").exists()

    for suffix in ("npz", "safetensors"):
        vilau("encode", tower_folder, photos, "--out", f"codes.{suffix}")
        data = (tmp_path / f"codes.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
        refused(f"cut.{suffix}", f"cut.{suffix} cannot be read as codes")
        (tmp_path / f"words.{suffix}").write_text("these are no codes")
        refused(f"words.{suffix}", f"words.{suffix} cannot be read as codes")
    refused("gone.npz", "gone.npz does not exist; give a file written by vilau encode")
    refused("codes.txt", "codes.txt is no name for codes; end it in .safetensors or .npz")
    save_file({"codes": torch.zeros(1, 16, 3, dtype=torch.int32)}, tmp_path / "bare.safetensors")
    refused("bare.safetensors", "bare.safetensors cannot be read as codes")
    with np.load(tmp_path / "codes.npz") as archive:
        metadata, codes = archive["metadata"], archive["codes"]
    np.savez(tmp_path / "high.npz", codes=codes + 24, metadata=metadata)
    refused("high.npz", "outside 0..23; encode the images again")
    np.savez(tmp_path / "short.npz", codes=codes[:2], metadata=metadata)
    refused("short.npz", "shape (2, 16, 3), but its own description says (3, 16, 3)")

    code, _, error = vilau("decode", tower_folder, "codes.npz", "--upto", 4)
    assert (code, "--upto is 4, but codes.npz holds 3 depths" in error) == (2, True)


def test_reconstructing_shows_every_depth(
    vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path
) -> None:
    code, printed, _ = vilau("reconstruct", tower_folder, photos, "--out", "strips")
    assert code == 0
    head, *rows = printed.splitlines()[:5]
    assert head.split() == ["PSNR,", "dB", "depth", "1", "depths", "1-2", "depths", "1-3"]
    assert [row.split()[0] for row in rows] == ["a.png", "b.png", "c.png", "mean"]
    assert printed.splitlines()[5:] == [f"strips/{name}.png" for name in "abc"]

    tower, images = load_tower(tower_folder), tiny.images(3)
    depths = tower.reconstruct_by_part(to_float(images))
    for number, row in enumerate(rows[:3]):
        errors = (to_uint8(depths[:, number]).float() - images[number].float()) ** 2
        psnr = 10 * torch.log10(255**2 / errors.mean(dim=(1, 2, 3)))
        assert [float(x) for x in row.split()[1:]] == pytest.approx(psnr.tolist(), abs=0.006)

    strip = shown(tmp_path / "strips/b.png")
    # Enlarged 8 times with margins of 4, below a line of headings: original, then the depths.
    assert strip.shape == (3, 16 + 8 + 128, 4 + 4 * 132)
    for column, picture in enumerate([images[1], *to_uint8(depths[:, 1])]):
        tile = strip[:, 20:148, 4 + column * 132 : 132 + column * 132]
        difference = tile[:, 4::8, 4::8].int() - picture.int()
        assert difference.abs().max() <= 1  # one more rounding between the two ways
    assert (strip[:, :16] < 128).any()  # something is written there


def test_reconstructing_a_clip_gives_a_row_per_frame(
    vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("reconstruct", tower_folder, "--video", photos, "--out", "v", photos / "a.png")
    code, printed, _ = vilau(*command)
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()[1:4]] == ["a.png", "photos", "mean"]
    assert shown(tmp_path / "v/photos.png").shape[1] == 16 + 4 + 8 * 132
    code, _, error = vilau("reconstruct", tower_folder)
    assert (code, "there is nothing to reconstruct; name images" in error) == (2, True)


def test_files_are_not_replaced_unasked(vilau: Command, tower_folder: Path, photos: Path) -> None:
    commands = [
        ("encode", tower_folder, photos, "--out", "codes.npz"),
        ("decode", tower_folder, "codes.npz", "--out", "d"),
        ("reconstruct", tower_folder, photos, "--out", "r"),
    ]
    for command in commands:
        assert vilau(*command)[0] == 0
        code, _, error = vilau(*command)
        assert code == 2
        assert "exists already; write another --out, or --force to replace it" in error
        assert vilau(*command, "--force")[0] == 0
    assert not list(Path.cwd().rglob(".*"))  # no half-written files are left
    (Path.cwd() / "file").write_text("")
    code, _, error = vilau("encode", tower_folder, photos, "--out", "file/codes.npz")
    assert (code, "file cannot be written, since file is no folder" in error) == (2, True)
    code, _, error = vilau("encode", tower_folder, photos, "--out", "codes.pt")
    assert (code, "end it in .safetensors or .npz" in error) == (2, True)


def test_codes_are_whole_numbers(vilau: Command, tower_folder: Path, photos: Path) -> None:
    vilau("encode", tower_folder, photos, "--out", "codes.npz")
    with np.load("codes.npz") as archive:
        codes, facts = archive["codes"], archive["metadata"]
    np.savez("float.npz", codes=codes.astype(np.float32), metadata=facts)
    np.savez("small.npz", codes=codes.astype(np.uint16), metadata=facts)
    tensors = {"codes": torch.from_numpy(codes).float()}
    save_file(tensors, "float.safetensors", metadata=json.loads(str(facts)))
    for name in ("float.npz", "float.safetensors"):
        code, _, error = vilau("decode", tower_folder, name, "--out", "never")
        assert (code, error.count("\n")) == (2, 1)
        assert f"{name} cannot be read as codes (its codes are float32, where whole num" in error
        assert not Path("never").exists()
    assert vilau("decode", tower_folder, "small.npz")[0] == 0


def test_an_out_that_cannot_be_written_is_told_without_caches(
    vilau: Command, tower_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("vilau.apps.files.os.replace", closed)
    code, _, error = vilau("encode", tower_folder, photos, "--out", "codes.npz")
    assert code == 2
    assert error == (
        "error: codes.npz cannot be written (Permission denied); choose a folder you may write to.\n"
    )
    assert not list(Path.cwd().glob("*.npz"))
    assert not list(Path.cwd().glob(".*"))


def test_metadata_is_plain_json(vilau: Command, tower_folder: Path, photos: Path) -> None:
    vilau("encode", tower_folder, photos, "--out", "codes.npz")
    with np.load("codes.npz") as archive:
        facts = json.loads(str(archive["metadata"]))
    assert json.loads(facts["spec"])["codebook_size"] == 24
    assert set(facts) == {"format", "files", "spec", "tower"}
