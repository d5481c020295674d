"""Sets of codes: made chunk by chunk, read in the place of images, refused where pixels are needed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.conftest import encoded, picture, tree
from vilau.data.bundle import MARK, pack, unpack
from vilau.data.codes import Coding
from vilau.data.image_text import ImageTextPairs
from vilau.data.instructions import Instructions
from vilau.data.media.images import ImageTransform, encode_png
from vilau.data.mixture import MultimodalMixture
from vilau.data.preparing.prepare import Options, describe, prepare
from vilau.data.preparing.tokenize import mark_of, tokenize, unfinished
from vilau.data.shards import MANIFEST, Record, ShardSet, ShardWriter
from vilau.data.sources.forms import find_source
from vilau.data.world_data import WorldSpec, world_set
from vilau.errors import ConfigError, DataError
from vilau.types import CodedSet, MultimodalBatch, ReadsCodes
from vilau.world.scene import Scene

SIDE = 32
CODING = Coding("0123456789ab", "runs/tower", "float32", 3, 2, 300, SIDE)


def codes_of(pixels: np.ndarray) -> np.ndarray:
    """Numbers that any change of the pixels changes: uint8 ``(B, H, W, 3)`` to codes ``(B, 3, 2)``."""
    flat = pixels.reshape(len(pixels), -1).astype(np.int64)
    weighted = (flat * (np.arange(flat.shape[1]) % 97 + 1)).sum(axis=1)
    return np.stack([weighted // n % 300 for n in (1, 3, 7, 11, 13, 17)], axis=1).reshape(-1, 3, 2)


def coded(source: ShardSet, folder: Path, coding: Coding = CODING, batch_size: int = 4) -> ShardSet:
    tokenize(source, folder, coding, codes_of, batch_size=batch_size)
    return ShardSet(folder)


def samples(count: int) -> list[Record]:
    """Pictures that are no squares, two of them in a bundle with a clip, one sample in words alone."""
    images = [encode_png(np.asarray(picture(n, (40 + n, 36)))) for n in range(count + 3)]
    made = [Record(images[n], (f"photo {n}", "größe"), "") for n in range(count)]
    made[1] = Record(b"", ("a question", "an answer"))
    made[2] = Record(pack([images[-3], (images[-2], images[-1])]), ("two", "media"))
    return made


def stored(
    folder: Path, records: list[Record], *, kind: str = "instructions", chunk_bytes: int = 800
) -> ShardSet:
    with ShardWriter(
        folder, kind=kind, source="s", spec={"a": 1}, chunk_bytes=chunk_bytes
    ) as writer:
        for record in records:
            writer.add(record)
    return ShardSet(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return stored(tmp_path_factory.mktemp("plain") / "set", samples(12))


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize(("size", "number"), [(300, "<u2"), (1 << 16, "<u2"), (70000, "<u4")])
def test_every_image_becomes_the_codes_of_its_centre_and_all_else_stays(
    plain: ShardSet, tmp_path: Path, size: int, number: str
) -> None:
    before = tree(plain.folder)
    made = coded(plain, tmp_path / "codes", replace(CODING, codebook_size=size))
    assert tree(plain.folder) == before
    assert made.chunk_sizes == plain.chunk_sizes
    assert len(made.chunk_sizes) > 3
    made.verify()
    centre = ImageTransform(SIDE)

    def codes(image: bytes) -> bytes:
        return codes_of(centre(image, None)[None])[0].astype(number).tobytes()  # type: ignore[arg-type]

    for old, new in zip(plain.read(range(12)), made.read(range(12)), strict=True):
        assert (new.texts, new.scene) == (old.texts, old.scene)
        if old.texts == ("two", "media"):
            image, frames = unpack(old.image)
            assert unpack(new.image) == [codes(image), tuple(map(codes, frames))]
        else:
            assert new.image == (codes(old.image) if old.image else b"")
    assert made.manifest.kind == "instructions"
    assert made.manifest.spec["a"] == 1


def test_batches_do_not_depend_on_samples_or_on_where_chunks_end(
    plain: ShardSet, tmp_path: Path
) -> None:
    seen = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8
        seen.append(len(pixels))
        return codes_of(pixels)

    tokenize(plain, tmp_path / "three", CODING, encode, batch_size=3)
    assert sum(seen) == 10 + 3  # ten pictures alone, three in the bundle
    assert max(seen) == 3
    coded(plain, tmp_path / "all", batch_size=100)
    assert tree(tmp_path / "three") == tree(tmp_path / "all")


def _die_at_image(source: ShardSet, folder: Path, number: int) -> None:
    left = [number]

    def encode(pixels: np.ndarray) -> np.ndarray:
        left[0] -= len(pixels)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return codes_of(pixels)

    tokenize(source, folder, CODING, encode, batch_size=1)


def test_what_was_killed_goes_on_where_it_stopped(plain: ShardSet, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", coded(plain, tmp_path / "whole", batch_size=1)
    process = multiprocessing.get_context("fork").Process(
        target=_die_at_image, args=(plain, out, 8)
    )
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    left = unfinished(plain, out, CODING)
    assert left is not None
    finished = len(list((left / "parts").glob("*.json")))
    assert 0 < finished < len(plain.chunk_sizes)
    # One file of a finished chunk is broken as well: that chunk is made again.
    first = next((left / "set").glob("chunk-0-*.bin"))
    first.write_bytes(first.read_bytes()[:-1])
    seen = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return codes_of(pixels)

    tokenize(plain, out, CODING, encode, batch_size=1)
    assert len(seen) < 13
    assert tree(out) == tree(whole.folder)
    assert not list(tmp_path.glob(".*"))


def test_an_error_keeps_what_was_finished(plain: ShardSet, tmp_path: Path) -> None:
    def encode(pixels: np.ndarray) -> np.ndarray:
        left.append(1)
        if len(left) > 6:
            raise RuntimeError("CUDA out of memory")
        return codes_of(pixels)

    left: list[int] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        tokenize(plain, tmp_path / "out", CODING, encode, batch_size=1)
    assert unfinished(plain, tmp_path / "out", CODING) is not None
    left[:] = [1] * 6
    with pytest.raises(RuntimeError, match="out of memory"):  # nothing finished: nothing is left
        tokenize(plain, tmp_path / "other", CODING, encode, batch_size=1)
    assert unfinished(plain, tmp_path / "other", CODING) is None


def test_a_second_run_does_nothing_and_another_tower_is_refused(
    plain: ShardSet, tmp_path: Path
) -> None:
    made = coded(plain, tmp_path / "codes")
    before = tree(made.folder)
    moved = replace(CODING, encoded_by="elsewhere")
    again = tokenize(plain, made.folder, moved, codes_of, batch_size=1)
    assert again.already
    assert "codes holds them already; nothing was done" in again.summary()
    for other in (replace(CODING, tower="ba9876543210"), replace(CODING, dtype="bfloat16")):
        with pytest.raises(DataError, match=r"codes already exists and was made .*0123456789ab"):
            tokenize(plain, made.folder, other, codes_of, batch_size=4)
    with pytest.raises(DataError, match=r"already exists and was made .*holds no codes"):
        tokenize(plain, plain.folder, CODING, codes_of, batch_size=4)
    other_source = stored(tmp_path / "more", samples(5))
    assert mark_of(other_source, CODING) != mark_of(plain, CODING)
    with pytest.raises(DataError, match="was made from another source"):
        tokenize(other_source, made.folder, CODING, codes_of, batch_size=4)
    assert tree(made.folder) == before


def test_codes_classes_and_broken_images_are_not_encoded(
    plain: ShardSet, photos: Path, tmp_path: Path
) -> None:
    made = coded(plain, tmp_path / "codes")
    with pytest.raises(DataError, match=r"codes holds codes already \(3 positions x 2 depths of"):
        tokenize(made, tmp_path / "twice", CODING, codes_of, batch_size=4)
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/1.jpg").write_bytes(encoded(picture()))
    prepare(
        find_source(str(tmp_path / "pets"), kind="classes"),
        tmp_path / "classes",
        Options(),
        kind="classes",
    )
    with pytest.raises(DataError, match="holds images in classes"):
        tokenize(ShardSet(tmp_path / "classes"), tmp_path / "c", CODING, codes_of, batch_size=4)
    broken = stored(tmp_path / "broken", [Record(b"no image", ("a",))])
    with pytest.raises(DataError, match="broken holds an image that cannot be read"):
        tokenize(broken, tmp_path / "b", CODING, codes_of, batch_size=4)

    def too_high(pixels: np.ndarray) -> np.ndarray:
        return codes_of(pixels) + 300

    with pytest.raises(DataError, match=r"the tower gave codes from \d+ to \d+, outside 0..299"):
        tokenize(plain, tmp_path / "high", CODING, too_high, batch_size=4)
    assert not {"twice", "c", "b", "high"} & {path.name for path in tmp_path.iterdir()}


# ------------------------------------------------------------------ reading


def reads(
    path: Path | str, kind: type = MultimodalMixture, **settings: object
) -> MultimodalMixture:
    defaults = {
        "path": str(path),
        "image_size": SIDE,
        "global_batch_size": 10,
        "num_val_samples": 8,
    }
    data = kind(**{**defaults, **settings})
    data.prepare_data()
    data.setup("fit")
    return data


def check_equal(pixels: MultimodalBatch, codes: MultimodalBatch) -> int:
    """The same documents; rows of codes are those of the pixels. Returns how many rows have codes."""
    assert codes.documents == pixels.documents
    assert codes.codes is not None
    assert codes.codes.dtype == torch.int64
    assert pixels.num_images == codes.num_images == len(pixels.images)
    wanted = codes_of(pixels.images.permute(0, 2, 3, 1).numpy())
    live = iter(codes.images)
    known = 0
    for row, image, want in zip(codes.codes, pixels.images, wanted, strict=True):
        if (row == -1).all():
            assert torch.equal(next(live), image)
        else:
            assert (row.numpy() == want).all()
            known += 1
    assert next(live, None) is None
    return known


@pytest.fixture(scope="module")
def drawn(world: WorldSpec, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training split of the drawn world as codes."""
    folder = tmp_path_factory.mktemp("drawn") / "codes"
    coded(world_set(world, "train", image_size=SIDE), folder)
    return folder


NOTHING = {"image_to_text_share": 0.0, "text_to_image_share": 0.0}
SHARES = {"image_to_text_share": 0.3, "text_to_image_share": 0.4, "interleaved_share": 0.2}


@pytest.mark.parametrize(
    "shares",
    [{**SHARES, "text_only_share": 0.1}, {**SHARES, "text_to_video_share": 0.1}],
    ids=["codes alone", "codes and drawn clips"],
)
def test_a_mixture_of_codes_is_that_of_the_pixels(
    world: WorldSpec, drawn: Path, shares: dict[str, float]
) -> None:
    settings = {"world": world, "seed": 3, **shares}
    pixels = reads("world", **settings)
    codes = reads(drawn, **settings, validation="world")
    train = zip(pixels.train_dataloader(), codes.train_dataloader(), strict=True)
    rows = [(check_equal(a, b), a.num_images, len(b.images)) for a, b in islice(train, 5)]
    assert all(known > 0 for known, _, _ in rows)
    live = sum(left for _, _, left in rows)
    assert live == sum(total - known for known, total, _ in rows)
    assert bool(live) == ("text_to_video_share" in shares)
    first, second = next(iter(pixels.val_dataloader())), next(iter(codes.val_dataloader()))
    assert second.codes is None  # a set of images for validation beside one of codes
    assert torch.equal(first.images, second.images)
    assert first.documents == second.documents
    assert isinstance(codes, ReadsCodes)
    assert codes.coded_sets() == [CodedSet(str(drawn), "0123456789ab", "runs/tower")]
    assert pixels.coded_sets() == []


def test_interleaved_documents_hold_samples_of_their_split(
    world: WorldSpec, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = reads(
        drawn,
        world=world,
        **NOTHING,
        interleaved_share=1.0,
        interleaved_images=4,
        num_val_samples=20,
    )
    read: list[int] = []
    plain = ShardSet.read

    def spy(self: ShardSet, indices: Any) -> Any:
        read.extend(int(index) for index in indices)
        return plain(self, indices)

    monkeypatch.setattr(ShardSet, "read", spy)
    for loader, own in (
        (data.train_dataloader(), data._split.train_indices),
        (data.val_dataloader(), data._split.val_indices),
    ):
        read.clear()
        list(islice(loader, 3))
        assert len(read) >= 8
        assert set(read) <= {int(index) for index in own}


def test_instructions_of_codes_are_those_of_the_pixels(world: WorldSpec, drawn: Path) -> None:
    settings = {"kind": Instructions, "world": world, "exam_share": 0.3, "drawing_share": 0.3}
    pixels, codes = reads("world", **settings), reads(drawn, **settings, validation="world")
    train = zip(pixels.train_dataloader(), codes.train_dataloader(), strict=True)
    for first, second in islice(train, 3):
        assert check_equal(first, second) == 10
        assert len(second.images) == 0
    with pytest.raises(ConfigError, match=r"data.world.level is easy, but .*codes holds .* base"):
        reads(drawn, **{**settings, "world": replace(world, level="easy")})


def test_own_conversations_and_words_alone(tmp_path: Path) -> None:
    plain = samples(12)[:2] + samples(12)[3:]
    source = stored(tmp_path / "set", plain)
    made = coded(source, tmp_path / "codes")
    pixels, codes = (reads(s.folder, Instructions, num_val_samples=1) for s in (source, made))
    (first,), (second,) = (list(data.train_dataloader()) for data in (pixels, codes))
    assert check_equal(first, second) >= 8
    words = [Record(b"", ("a", "b"))] * 12
    alone = coded(stored(tmp_path / "words", words), tmp_path / "no-codes")
    (batch,) = list(reads(alone.folder, Instructions, num_val_samples=1).train_dataloader())
    assert (batch.codes, batch.num_images) == (None, 0)


def test_clips_and_web_documents_of_codes(world: WorldSpec, drawn: Path, tmp_path: Path) -> None:
    """Sets of their own beside codes of the drawn world; a conversation about several pictures."""
    shots = [encode_png(np.asarray(picture(n, (40 + n, 36)))) for n in range(12)]
    clips = [Record(pack([tuple(shots[n : n + 4])]), (f"clip {n}",)) for n in range(8)]
    web = [Record(pack(shots[n : n + 2]), (f"{MARK} one {n} {MARK} two",)) for n in range(8)]
    shares = {"video_path": ("text_to_video", clips), "interleaved_path": ("interleaved", web)}
    settings = {"world": world, "random_crop": False, "validation": "world"}
    settings |= {"image_to_text_share": 0.4, "text_to_image_share": 0.0}
    paths: dict[str, dict[str, str]] = {"plain": {}, "codes": {}}
    for key, (form, records) in shares.items():
        source = stored(
            tmp_path / form,
            records,
            kind=form.removeprefix("text_to_") + "s" * (form != "interleaved"),
        )
        made = coded(source, tmp_path / f"{form}-codes")
        settings[f"{form}_share"] = 0.3
        paths["plain"][key], paths["codes"][key] = str(source.folder), str(made.folder)
    pixels, codes = (
        reads("world", **settings, **paths["plain"]),
        reads(drawn, **settings, **paths["codes"]),
    )
    train = zip(pixels.train_dataloader(), codes.train_dataloader(), strict=True)
    forms = set()
    for first, second in islice(train, 3):
        assert check_equal(first, second) == len(first.images) > 10
        forms |= {document.source for document in second.documents}
    assert forms == {"image_to_text", "text_to_video", "interleaved"}
    assert {Path(one.name).name for one in codes.coded_sets()} == {
        "codes", "text_to_video-codes", "interleaved-codes",
    }  # fmt: skip

    turns = (f"{MARK} and {MARK} ?", "two")
    talks = stored(tmp_path / "talks", [Record(pack(shots[n : n + 2]), turns) for n in range(11)])
    about = (talks, coded(talks, tmp_path / "talks-codes"))
    pixels, codes = (reads(s.folder, Instructions, num_val_samples=1) for s in about)
    (first,), (second,) = (list(data.train_dataloader()) for data in (pixels, codes))
    assert check_equal(first, second) == 20


def test_batches_of_pixels_are_as_they_were(world: WorldSpec) -> None:
    batch = next(iter(reads("world", world=world).train_dataloader()))
    assert batch.codes is None
    assert batch.num_images == len(batch.images) > 0


# ------------------------------------------------------------------ refusing


def test_codes_are_refused_where_pixels_are_needed(drawn: Path, tmp_path: Path) -> None:
    needs = r"codes holds codes of images where pixels are needed; give the set .*train split"
    with pytest.raises(DataError, match=needs):
        reads(drawn, ImageTextPairs)
    with pytest.raises(DataError, match=needs):
        find_source(str(drawn))
    with pytest.raises(ConfigError, match=r"data.image_size is 64, but .*codes holds .* write 32"):
        reads(drawn, image_size=64)


def test_damaged_codes_are_told(plain: ShardSet, tmp_path: Path) -> None:
    made = coded(plain, tmp_path / "codes")
    with pytest.raises(DataError, match="an image's codes take 5 bytes where 3 positions x 2 dep"):
        CODING.unpack(b"12345", made.folder)
    with pytest.raises(DataError, match=r"codes is damaged: it holds codes from 0 to 300, outside"):
        CODING.unpack(np.array([0, 1, 2, 3, 4, 300], "<u2").tobytes(), made.folder)
    with pytest.raises(DataError, match=r"the shape \(2, 3\) instead of 3 positions x 2 depths"):
        CODING.pack(np.zeros((2, 3), dtype=np.int64))
    content = json.loads((made.folder / MANIFEST).read_text())
    del content["spec"]["codes"]["tower"]
    (made.folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"manifest of .*codes is damaged: it does not say what"):
        ShardSet(made.folder)


def test_a_set_tells_what_its_codes_are_of(drawn: Path) -> None:
    assert describe(ShardSet(drawn))["codes"] == (
        "3 positions x 2 depths of 300 codes (uint16) of the middle 32 x 32 pixels; tower 0123456789ab "
        "(runs/tower) in float32"
    )
    scenes = [Scene.from_json(record.scene) for record in ShardSet(drawn).read(range(3))]
    assert all(scene.things for scene in scenes)
