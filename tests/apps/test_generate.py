"""``vilau generate``: the model's own pictures, in files, with a record of how they were made."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vilau as kit
from tests.apps.conftest import Command
from tests.models import tiny
from vilau.data.media.video import read_clip
from vilau.generation.sampling import image_seed
from vilau.layers.pixels import to_uint8

PROMPTS = ["a red circle", "Two squares, both blue!"]


def shown(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_pictures_are_the_models(vilau: Command, model_folder: Path, tmp_path: Path) -> None:
    code, printed, _ = vilau(
        "generate", model_folder.parent, PROMPTS[0], "--num", 2, PROMPTS[1], "--seed", 7,
        "--guidance-scale", 2, "--top-k", 12, "--top-p", 0.9, "--negative-prompt", "a star",
        "--batch-size", 3, "--out", "out",
    )  # fmt: skip
    assert code == 0
    names = [
        "000-a-red-circle.png", "001-a-red-circle.png",
        "002-two-squares-both-blue.png", "003-two-squares-both-blue.png",
    ]  # fmt: skip
    assert printed.split() == [f"out/{name}" for name in [*names, "contact-sheet.png", "prompts.json"]]  # fmt: skip

    model = kit.load(model_folder)
    images = model.generate_images(
        PROMPTS, guidance_scale=2.0, top_k=12, top_p=0.9, negative_prompt="a star", seed=7,
        num_images=2,
    )  # fmt: skip
    assert len(images.flatten(1).unique(dim=0)) == 4
    for name, image in zip(names, to_uint8(images), strict=True):
        assert torch.equal(shown(tmp_path / "out" / name), image)

    record = json.loads((tmp_path / "out/prompts.json").read_text())
    assert record["model"] == str(model_folder)
    assert record["settings"] == {
        "guidance_scale": 2.0, "guidance_start": None, "temperature": 1.0, "top_k": 12, "top_p": 0.9,
        "negative_prompt": "a star", "seed": 7, "dtype": None,
    }  # fmt: skip
    assert record["pictures"] == [
        {"files": [name], "prompt": PROMPTS[i // 2], "index": i % 2, "seed": image_seed(7, i)}
        for i, name in enumerate(names)
    ]
    sheet = shown(tmp_path / "out/contact-sheet.png")
    assert torch.equal(sheet[:, 4:132:8, 4:132:8], to_uint8(images)[0])
    assert torch.equal(sheet[:, 4:132:8, 136:264:8], to_uint8(images)[1])


def test_one_seed_gives_the_same_bytes_whatever_the_batch(
    vilau: Command, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\n  two squares \n")
    command = ("generate", model_folder, "--prompts", "prompts.txt", "--num", 2)
    assert vilau(*command, "--seed", 3, "--out", "first")[0] == 0
    assert vilau(*command, "--seed", 3, "--out", "second", "--batch-size", 1)[0] == 0
    assert vilau(*command, "--seed", 4, "--out", "third")[0] == 0
    first = contents(tmp_path / "first")
    assert first == contents(tmp_path / "second")
    assert set(first) == {
        "000-a-red-circle.png", "001-a-red-circle.png", "002-two-squares.png",
        "003-two-squares.png", "contact-sheet.png", "prompts.json",
    }  # fmt: skip
    third = contents(tmp_path / "third")
    assert all(third[name] != first[name] for name in first)
    greedy = (*command, "--temperature", 0)
    assert vilau(*greedy, "--seed", 1, "--out", "g")[0] == 0
    assert vilau(*greedy, "--seed", 2, "--out", "h")[0] == 0
    names = [name for name in first if name.endswith(".png")]
    assert all((tmp_path / "g" / n).read_bytes() == (tmp_path / "h" / n).read_bytes() for n in names)  # fmt: skip


def test_clips_are_the_models(
    vilau: Command, model_folder: Path, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    command = ("generate", model_folder, "a red circle", "--video", "--frames", 3, "--seed", 5)
    code, printed, _ = vilau(*command, "--formats", "gif,mp4,png", "--fps", 5, "--out", "v")
    assert code == 0
    names = [f"000-a-red-circle.{form}" for form in ("gif", "mp4", "png")]
    assert printed.split()[:3] == [f"v/{name}" for name in names]
    clip = kit.load(model_folder).generate_videos(["a red circle"], num_frames=3, seed=5)
    frames = to_uint8(clip)[0]
    strip = shown(tmp_path / "v/000-a-red-circle.png")
    assert torch.equal(strip, torch.cat(list(frames), dim=2))
    for name in names[:2]:
        read = read_clip(tmp_path / "v" / name, num_frames=3)
        assert (read.count, read.fps) == (3, pytest.approx(5))
    gif = np.stack([np.asarray(f) for f in read_clip(tmp_path / "v" / names[0], num_frames=3).frames])  # fmt: skip
    assert np.abs(gif.transpose(0, 3, 1, 2).astype(int) - frames.numpy().astype(int)).mean() < 4
    record = json.loads((tmp_path / "v/prompts.json").read_text())
    assert record["clips"][0]["files"] == names
    assert record["settings"]["num_frames"] == 3
    sheet = shown(tmp_path / "v/contact-sheet.png")
    assert torch.equal(sheet[:, 4:132:8, 4:388:8], strip)

    given = (*command, "--formats", "png", "--first-frame", photos / "a.png", "--out", "w")
    assert vilau(*given)[0] == 0
    first = shown(tmp_path / "w/000-a-red-circle.png")[:, :, : tiny.SIDE]
    tower = kit.load_tower(model_folder)
    with torch.inference_mode():
        codes = tower.encode(tiny.images(1).float() / 127.5 - 1)
        assert (first.int() - to_uint8(tower.decode(codes))[0].int()).abs().max() <= 1


def test_without_pyav_clips_are_gifs_unless_mp4_was_asked_for(
    vilau: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    command = ("generate", model_folder, "a red circle", "--video", "--frames", 2)
    code, _, error = vilau(*command, "--out", "v")
    assert code == 0
    assert "clips are written as GIF alone: MP4 needs the package PyAV (pip install" in error
    assert {path.suffix for path in Path("v").iterdir()} == {".gif", ".png", ".json"}
    assert vilau("generate", model_folder, "a red circle", "--video", "--out", "d")[0] == 0
    record = json.loads(Path("d/prompts.json").read_text())["settings"]
    assert (record["num_frames"], record["fps"]) == (8, 4.0)
    code, _, error = vilau(*command, "--out", "w", "--formats", "mp4")
    assert code == 2
    assert "--formats mp4 needs the package PyAV; install it with pip install" in error
    assert not Path("w").exists()


def test_a_drawing_that_is_stopped_promises_nothing(
    vilau: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vilau.apps.generate.open_model", interrupted)
    assert vilau("generate", model_folder, "x") == (130, "", "\nstopped.\n")


def test_mistakes_are_told_before_the_model_is_opened(
    vilau: Command, model_folder: Path, tower_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("vilau.apps.generate.open_model", opened.append)
    Path("empty.txt").write_text("\n\n")
    Path("file").write_text("")
    Path("out").mkdir()
    Path("out/prompts.json").write_text("{}")
    for arguments, says in [
        ((), "there is no prompt; write one behind the model, or --prompts FILE"),
        (("--prompts", "empty.txt"), "empty.txt is empty; write one prompt per line"),
        (("--prompts", "gone.txt"), "gone.txt does not exist; give a text file"),
        (("x", "--top-p", "1.5"), "argument --top-p: 1.5 is not above 0 and at most 1"),
        (("x", "--num", "0"), "argument --num: '0' is no whole number from 1 on"),
        (("x", "--temperature", "-1"), "argument --temperature: -1 is below 0"),
        (("x", "--guidance-scale", "nan"), "argument --guidance-scale: 'nan' is no number"),
        (("x", "--seed", "soon"), "argument --seed: 'soon' is no whole number"),
        (("x", "--dtype", "int8"), "argument --dtype: invalid choice: 'int8'"),
        (("x", "--video", "--formats", "gif,avi"), "--formats holds 'avi'; write gif, mp4, png"),
        (("x", "--first-frame", "a.png"), "--first-frame is of a clip; write --video too"),
        (("x", "--formats", "gif"), "--formats is of a clip; write --video too, or leave it out."),
        (("x", "--frames", "8"), "--frames is of a clip; write --video too, or leave it out."),
        (("x", "--fps", "3"), "--fps is of a clip; write --video too, or leave it out."),
        (("x", "--keep", "0.3"), "--keep is of a picture to complete; write --complete too, or"),
        (("x", "--seed", "9" * 23), f"--seed: {'9' * 23} is above {2**63 - 1}, the largest"),
        (("x", "a\udcff"), "the prompt holds the byte 0xff, which is no UTF-8; write it in UTF-8"),
        (("x", "--num", "1", "\udcff"), "the prompt holds the byte 0xff, which is no UTF-8"),
        (("x", "--negative-prompt", "\udcff"), "--negative-prompt holds the byte 0xff, which is"),
        (("x", "--complete", "a.png", "--video"), "--complete is of a picture; for a clip write"),
        (("x", "--complete", "gone.png"), "gone.png"),
        (("x", "--keep", "0"), "argument --keep: 0 is not above 0 and at most 1"),
        (("x", "--guidance-start", "-1"), "argument --guidance-start: -1 is below 0"),
        (("x", "--top-k", "9,x"), "argument --top-k: 'x' is no whole number"),
        (
            ("x", "--video", "--frames", "1", "--first-frame", "a", "--first-frame", "b"),
            "--first-frame is given 2 times for 1 frames; write fewer",
        ),
        (("x", "--out", "file"), "file cannot be written, since file is no folder"),
        (("x", "--out", "out"), "out/prompts.json exists already; write another --out, or --force"),
        (("x", "--colour", "red"), "unknown argument `--colour`"),
    ]:
        code, _, error = vilau("generate", model_folder, *arguments)
        assert (code, error.count("\n")) == (2, 1), error
        assert says in error
    assert opened == []


def test_ramps_and_settings_per_depth_are_the_models(
    vilau: Command, model_folder: Path, tmp_path: Path
) -> None:
    code, _, _ = vilau(
        "generate", model_folder, PROMPTS[0], "--guidance-start", 1, "--guidance-scale", 4,
        "--temperature", "1,0.5,0", "--top-k", "12,6,3", "--top-p", "0.9,0.8,1", "--out", "out",
    )  # fmt: skip
    assert code == 0
    settings = {
        "guidance_scale": 4.0, "guidance_start": 1.0, "temperature": [1.0, 0.5, 0.0],
        "top_k": [12, 6, 3], "top_p": [0.9, 0.8, 1.0],
    }  # fmt: skip
    image = kit.load(model_folder).generate_images(PROMPTS[0], seed=0, **settings)
    assert torch.equal(shown(tmp_path / "out/000-a-red-circle.png"), to_uint8(image)[0])
    record = json.loads((tmp_path / "out/prompts.json").read_text())["settings"]
    assert settings.items() <= record.items()
    code, _, error = vilau("generate", model_folder, "x", "--top-k", "5,5", "--out", "no")
    assert (code, error.count("\n")) == (2, 1)
    assert "error: --top-k holds 2 values for residual depth 3; write 3 values, or one" in error
    assert not (tmp_path / "no").exists()


def test_an_image_or_its_codes_are_completed(
    vilau: Command, model_folder: Path, photos: Path, tmp_path: Path
) -> None:
    tower = kit.load_tower(model_folder)
    with torch.inference_mode():
        codes = tower.encode(tiny.images(1).float() / 127.5 - 1)
    expected = kit.load(model_folder).generate_images(
        PROMPTS[:1] * 2, seed=4, given_codes=codes[:, :4]
    )
    plain = ("generate", model_folder, PROMPTS[0], "--num", 2, "--seed", 4)
    command = (*plain, "--keep", 0.25)
    assert vilau(*command, "--complete", photos / "a.png", "--out", "a")[0] == 0
    for number, image in enumerate(to_uint8(expected)):
        assert torch.equal(shown(tmp_path / f"a/00{number}-a-red-circle.png"), image)
    assert vilau("encode", model_folder, photos / "a.png", "--out", "codes.npz")[0] == 0
    assert vilau(*command, "--complete", "codes.npz", "--out", "b")[0] == 0
    names = [f"00{number}-a-red-circle.png" for number in (0, 1)]
    assert all((tmp_path / f"a/{n}").read_bytes() == (tmp_path / f"b/{n}").read_bytes() for n in names)  # fmt: skip
    record = json.loads((tmp_path / "b/prompts.json").read_text())["settings"]
    assert (record["complete"], record["keep"]) == ("codes.npz", 0.25)
    assert vilau(*plain, "--complete", "codes.npz", "--out", "half")[0] == 0
    record = json.loads((tmp_path / "half/prompts.json").read_text())["settings"]
    assert (record["complete"], record["keep"]) == ("codes.npz", 0.5)

    assert vilau("encode", model_folder, photos, "--out", "many.npz")[0] == 0
    code, _, error = vilau(*command, "--complete", "many.npz", "--out", "c")
    assert code == 2
    assert "many.npz holds the codes of 3 images, but --complete takes one" in error
    assert not (tmp_path / "c").exists()


def test_a_clip_begins_with_several_frames(
    vilau: Command, model_folder: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("generate", model_folder, "a red circle", "--video", "--frames", 3, "--formats", "png")  # fmt: skip
    frames = ("--first-frame", photos / "a.png", "--first-frame", photos / "b.png")
    assert vilau(*command, *frames, "--out", "v")[0] == 0
    tower = kit.load_tower(model_folder)
    with torch.inference_mode():
        kept = to_uint8(tower.decode(tower.encode(tiny.images(2).float() / 127.5 - 1)))
    strip = shown(tmp_path / "v/000-a-red-circle.png")[:, :, : 2 * tiny.SIDE]
    assert (strip.int() - torch.cat(list(kept), dim=2).int()).abs().max() <= 1
