"""``vilau data tokenize``: the tower's own codes in shards, and a run that trains from them."""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.apps.conftest import Command
from tests.models import tiny
from vilau import load, load_tower
from vilau.apps.tokenize import world_spec
from vilau.data.pairs import load_picture
from vilau.data.shards import Record, ShardSet, ShardWriter
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.vila_u.config import TowerConfig
from vilau.models.vila_u.tower import VisionTower

COUNT = 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VILAU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(photos: Path, tmp_path: Path, vilau: Command) -> Path:
    """A prepared set of pictures of the towers' size."""
    for number, pixels in enumerate(tiny.images(COUNT, seed=5)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(photos / f"p{number:02d}.png")
    for path in photos.glob("?.png"):
        path.unlink()
    for path in photos.glob("*.png"):
        path.with_suffix(".txt").write_text(f"a red circle and {path.stem}")
    assert vilau("data", "prepare", photos, tmp_path / "shards", "--workers", 0)[0] == 0
    return tmp_path / "shards"


def pixels_of(shards: Path) -> torch.Tensor:
    images = [Image.open(io.BytesIO(r.image)) for r in ShardSet(shards).read(range(COUNT))]
    return torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)


def codes_of(folder: str) -> torch.Tensor:
    made = ShardSet(folder)
    assert made.coding is not None
    rows = [made.coding.unpack(record.image, made.folder) for record in made.read(range(len(made)))]
    return torch.from_numpy(np.stack(rows))


def test_codes_are_another_image_tokenizers_too(
    vilau: Command, tmp_path: Path, shards: Path
) -> None:
    """Of one by itself, and of a whole Liquid."""
    tiny.vqgan().save(tmp_path / "vqgan")
    tiny.liquid().save(tmp_path / "liquid")
    images = to_float(pixels_of(shards))
    for name in ("vqgan", "liquid"):
        codes = tmp_path / f"{name}-codes"
        assert vilau("data", "tokenize", shards, codes, "--tower", tmp_path / name)[0] == 0
        with torch.inference_mode():
            assert torch.equal(codes_of(str(codes)).long(), tiny.vqgan().encode(images))


def test_codes_are_the_towers(
    vilau: Command, tower_folder: Path, model_folder: Path, shards: Path
) -> None:
    code, printed, error = vilau("data", "tokenize", shards, "codes", "--tower", tower_folder)
    tower = load_tower(tower_folder)
    assert (code, error) == (0, "")
    said = (
        f"16 positions x 3 depths of 24 codes (uint16) of the middle 16 x 16 pixels; tower {tower.identity()} "
        f"({tower_folder}) in float32"
    )
    first, second, third = printed.splitlines()
    assert first.startswith(f"{COUNT} samples from folder ")
    assert second == said
    assert third.startswith("written to codes, ")
    wanted = tower.encode(to_float(pixels_of(shards)))
    assert torch.equal(codes_of("codes"), wanted)
    assert len(wanted.unique()) > 8

    code, printed, _ = vilau("data", "show", "codes", "--verify", "--samples", 2)
    assert code == 0
    assert f"codes: {said}\n" in printed
    assert "0: (codes) a red circle and p" in printed
    code, _, error = vilau("data", "show", "codes", "--sheet", "sheet.png")
    assert (code, "codes holds codes, which show nothing without their tower" in error) == (2, True)
    assert not Path("sheet.png").exists()

    again = vilau("data", "tokenize", shards, "codes", "--tower", model_folder.parent)
    assert (again[0], "nothing was done" in again[1]) == (0, True)  # the same tower, in a model


def test_a_number_format_of_its_own_leaves_the_identity(
    vilau: Command, tower_folder: Path, shards: Path
) -> None:
    options = ("--tower", tower_folder, "--batch-size", 5, "--device", "cpu")
    assert vilau("data", "tokenize", shards, "half", *options, "--dtype", "bfloat16")[0] == 0
    coding = ShardSet("half").coding
    assert coding is not None
    assert (coding.dtype, coding.tower) == ("bfloat16", load_tower(tower_folder).identity())
    tower = load_tower(tower_folder, dtype=torch.bfloat16)
    wanted = torch.cat([tower.encode(to_float(p).bfloat16()) for p in pixels_of(shards).split(5)])
    assert torch.equal(codes_of("half"), wanted)
    code, _, error = vilau("data", "tokenize", shards, "half", *options)
    assert (code, "or with another tower or number format" in error) == (2, True)


def test_the_drawn_world(vilau: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = tiny.sizes(image_size=32, patch_size=8)
    VisionTower(TowerConfig(dict(vars(sizes)), tiny.quantizer(), tiny.decoder())).save("tower")
    command = ("data", "tokenize", "world", "codes", "--tower", "tower", "--split", "val")
    code, printed, _ = vilau(*command, "--world", "level=easy", "num_val=7", "num_objects=1,2")
    assert (code, printed.splitlines()[0]) == (
        0,
        "7 samples from val split of the drawn world (easy)",
    )
    spec = ShardSet("codes").manifest.spec
    assert (spec["level"], spec["num_objects"], spec["image_size"]) == ("easy", [1, 2], 32)
    assert all(record.scene for record in ShardSet("codes").read(range(7)))


def test_the_world_is_named_as_in_a_study() -> None:
    words = ["num_train=9", "one_object_share=0.5", "sizes=small,large", "held_out=any", "seed=2"]
    wanted = WorldSpec(
        num_train=9, one_object_share=0.5, sizes=("small", "large"), held_out="any", seed=2
    )
    assert world_spec(words) == wanted
    for word, says in (
        ("num_trian=9", "Did you mean `num_train`?"),
        ("level", "write level= and a level"),
        ("num_objects=3", "write num_objects= and two numbers as 1,3"),
        ("num_val=many", "write num_val= and a number of scenes"),
    ):
        with pytest.raises(ConfigError) as told:
            world_spec([word])
        assert str(told.value).startswith(f"--world holds {word}")
        assert says in str(told.value)


def test_mistakes_are_told_before_anything_is_written(
    vilau: Command, tower_folder: Path, shards: Path, photos: Path
) -> None:
    def refused(*words: object, says: str) -> None:
        code, printed, error = vilau("data", "tokenize", *words)
        assert (code, printed, error.count("\n")) == (2, "", 1), error
        assert says in error
        assert not list(Path.cwd().glob("*codes*"))

    tower = ("--tower", tower_folder)
    refused(photos, "codes", *tower, says="write one with `vilau data prepare")
    refused(photos / "p00.txt", "codes", *tower, says="p00.txt is a file; give the folder that")
    refused("nowhere", "codes", *tower, says="nowhere does not exist; write it with `vilau data pr")
    refused(
        shards, "codes", "--tower", "nowhere", says="nowhere does not exist; give the folder of"
    )
    refused(shards, photos, *tower, says="photos already exists")
    refused(shards, "codes", *tower, "--split", "val", says="--split is given, but SRC is")
    refused(shards, "codes", *tower, "--world", "seed=1", says="--world is given, but SRC is")
    refused("world", "codes", *tower, "--world", "seed=x", says="write seed= and a whole number")
    with ShardWriter(Path("broken"), kind="image_text", source="s", spec={}) as writer:
        writer.add(Record(b"no image", ("a",)))
    refused("broken", "codes", *tower, says="broken holds an image that cannot be read")


def half_broken(shards: Path) -> None:
    """Write the set `half`: one sample that can be read, in a chunk of its own, and one that cannot."""
    (whole,) = ShardSet(shards).read([0])
    with ShardWriter(Path("half"), kind="image_text", source="s", spec={}, chunk_bytes=1) as writer:
        writer.add(whole)
        writer.add(Record(b"no image", ("a",)))


def test_a_broken_set_leaves_nothing(vilau: Command, tower_folder: Path, shards: Path) -> None:
    half_broken(shards)
    code, _, error = vilau("data", "tokenize", "half", "codes", "--tower", tower_folder)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: half holds an image that cannot be read")
    assert not list(Path.cwd().glob(".codes*"))


@pytest.mark.parametrize(
    ("stop", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "\nstopped.\n"),
        (
            OSError(errno.ENOSPC, "full"),
            2,
            "error: The disk filled up while writing codes; nothing",
        ),
        (
            RuntimeError("CUDA out of memory. More"),
            2,
            "error: this takes more memory than there is",
        ),
    ],
)
def test_what_was_finished_is_told(
    vilau: Command, tower_folder: Path, shards: Path, stop: BaseException, code: int, says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stopped(*_: object) -> None:
        raise stop

    half_broken(shards)
    monkeypatch.setattr("vilau.data.preparing.tokenize.load_picture", stopped_at(1, stopped))
    found, _, error = vilau("data", "tokenize", "half", "codes", "--tower", tower_folder)
    first, _, rest = error.partition("\n")
    assert found == code
    assert first.startswith("What was finished is kept in .codes.preparing-")
    assert first.endswith("; the same command goes on.")
    assert rest.startswith(says)
    assert "VILAU_CACHE" not in error
    assert list(Path.cwd().glob(".codes.preparing-*/parts/000000.json"))


def stopped_at(number: int, stop: Callable[..., None]) -> Callable[..., Any]:
    """Return ``load_picture`` that stops at the picture of that number."""
    calls = itertools.count()

    def load(*arguments: Any) -> Any:
        if next(calls) == number:
            stop()
        return load_picture(*arguments)

    return load


# ------------------------------------------------------------------ training from codes


def stage(folder: Path, tower: Path, path: str, **model: Any) -> Path:
    config = {
        "seed_everything": 3,
        "model": {
            "class_path": "vilau.training.pretrain.MultimodalPretraining",
            "init_args": {
                "tower_checkpoint": str(tower),
                "language": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "mlp_size": 48},
                "head": {"width": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0},
                "prompt": {"system": ""},
                "standardise_codes": True,
                **model,
            },
        },
        "data": {
            "class_path": "vilau.data.mixture.MultimodalMixture",
            "init_args": {
                "path": path, "image_size": 16, "global_batch_size": 4, "num_val_samples": 2,
                "random_crop": False,
            },
        },
        "trainer": {
            "max_steps": 3, "accelerator": "cpu", "devices": 1, "precision": 32,
            "val_check_interval": 3, "check_val_every_n_epoch": None,
        },
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def test_a_run_from_codes_is_the_run_from_pixels(
    vilau: Command, tower_folder: Path, shards: Path, tmp_path: Path
) -> None:
    vilau("data", "tokenize", shards, "codes", "--tower", tower_folder)
    models = []
    for name, path in (("pixels", shards), ("codes", tmp_path / "codes")):
        config = stage(tmp_path / "runs" / name, tower_folder, str(path))
        assert vilau("fit", "--config", config)[0] == 0
        models.append(dict(load(tmp_path / "runs" / name).state_dict()))
    first, second = models
    assert set(first) == set(second)
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_codes_of_another_tower_stop_the_run_before_its_first_step(
    vilau: Command, tower_folder: Path, other_tower: Path, shards: Path, tmp_path: Path
) -> None:
    vilau("data", "tokenize", shards, "codes", "--tower", tower_folder)
    config = stage(tmp_path / "run", other_tower, str(tmp_path / "codes"))
    code, _, error = vilau("fit", "--config", config)
    theirs, ours = (load_tower(folder).identity() for folder in (tower_folder, other_tower))
    assert code == 2
    assert error.strip().splitlines()[-1] == (
        f"error: {tmp_path / 'codes'} holds codes of tower {theirs} ({tower_folder}), but this model's tower is "
        f"{ours}; train a model with that tower, or encode the set again with `vilau data tokenize` and this "
        "model's tower."
    )
    assert not (tmp_path / "run/model").exists()
    assert not list((tmp_path / "run").rglob("*.ckpt"))
