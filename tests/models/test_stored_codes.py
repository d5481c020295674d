"""Stored codes in the place of pixels: the same losses and gradients; and by what a tower knows its own codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models import tiny
from vilau import load, load_tower
from vilau.errors import DataError
from vilau.layers.pixels import to_float
from vilau.models.next_token.tokenized import Tokenized
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment


@pytest.fixture
def model() -> VilaU:
    return tiny.vila_u()


def pixels() -> MultimodalBatch:
    """Read, drawn, a clip, interleaved and words alone."""
    clip = Document((TextSegment("a red circle moves"), VideoSegment((2, 3), target=True)))
    web = Document((ImageSegment(4), TextSegment("two", target=True), ImageSegment(1)), chat=False)
    words = Document((TextSegment("how many"), TextSegment("three", target=True)))
    return MultimodalBatch(
        tiny.images(5), [tiny.drawing(0), tiny.caption(1, "two squares"), clip, web, words]
    )


def coded(model: VilaU, batch: MultimodalBatch, *, but: tuple[int, ...] = ()) -> MultimodalBatch:
    """The same batch from codes, but for some images."""
    codes = model.tokenizer.encode(to_float(batch.images))
    codes[list(but)] = -1
    return MultimodalBatch(batch.images[list(but)], batch.documents, codes=codes)


def losses_and_gradients(
    model: VilaU, batch: MultimodalBatch, **how: object
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    model.zero_grad()
    terms = model.losses(batch, **how)
    terms.total().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {n: float(v) for n, v in terms.means().items()}, found


def test_rows_without_codes_and_without_images_are_refused(model: VilaU) -> None:
    codes = model.tokenizer.encode(to_float(tiny.images(2)))
    codes[1] = -1
    batch = MultimodalBatch(tiny.images(0), [tiny.drawing(0), tiny.caption(1, "x")], codes=codes)
    with pytest.raises(DataError, match="holds 0 images for 1 rows without codes"):
        model.losses(batch)


@pytest.mark.parametrize("but", [(), (3, 1)], ids=["codes alone", "codes and pixels"])
@pytest.mark.parametrize("how", [{}, {"packing": True}, {"length_groups": 2}], ids=str)
def test_losses_and_gradients_are_those_of_the_pixels(
    model: VilaU, but: tuple[int, ...], how: dict[str, object]
) -> None:
    batch = pixels()
    but = tuple(sorted(but))
    losses, gradients = losses_and_gradients(model, batch, **how)
    from_codes, gradients_from_codes = losses_and_gradients(
        model, coded(model, batch, but=but), **how
    )
    assert set(losses) == {"text", "visual"}
    assert from_codes == losses
    assert set(gradients_from_codes) == set(gradients)
    assert len(gradients) > 20
    for name, gradient in gradients.items():
        assert torch.equal(gradients_from_codes[name], gradient), name
    other = coded(model, batch)
    assert other.codes is not None
    other.codes[0] = other.codes[1]
    assert losses_and_gradients(model, other, **how)[0]["visual"] != losses["visual"]


def test_codes_alone_ask_nothing_of_the_encoder(
    model: VilaU, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = coded(model, pixels())
    monkeypatch.setattr(VisionTower, "features", lambda *_: pytest.fail("an image was encoded"))
    assert model.losses(batch).total().isfinite()


def test_the_start_from_codes_is_that_from_pixels() -> None:
    batch, starts = pixels(), []
    for but in ((), (0, 4), None):
        model = tiny.vila_u()
        made = batch if but is None else coded(model, batch, but=but)
        model.standardise_codes(made.images, made.codes)
        starts.append((model.projector[0].weight, model.head.code_projection.bias))
    untouched = tiny.vila_u().projector[0].weight
    for weight, bias in starts[:2]:
        assert torch.equal(weight, starts[2][0])
        assert torch.equal(bias, starts[2][1])
        assert not torch.equal(weight, untouched)


def test_codes_that_do_not_fit_are_refused(model: VilaU) -> None:
    batch = coded(model, pixels())
    assert batch.codes is not None
    batch.codes = batch.codes[:, :, :2]
    with pytest.raises(
        DataError, match=r"codes of the shape \(5, 16, 2\), but .* 16 positions x 3"
    ):
        model.losses(batch)
    few = coded(model, pixels(), but=(1, 2))
    few.images = few.images[:1]
    with pytest.raises(DataError, match="holds 1 images for 2 rows without codes"):
        model.losses(few)
    beyond = coded(model, pixels())
    beyond.documents = [tiny.drawing(5)]
    with pytest.raises(DataError, match="refers to image 5 of its batch, which holds 5"):
        model.losses(beyond)


def test_a_batch_moves_with_its_codes(model: VilaU) -> None:
    batch = coded(model, pixels()).to("meta")
    assert batch.codes is not None
    assert batch.codes.device.type == "meta"


# ------------------------------------------------------------------ whose codes


def test_a_tower_keeps_its_identity(tmp_path: Path) -> None:
    tower = tiny.tower()
    found = tower.identity()
    assert len(found) == 12
    assert found == tiny.tower().identity() != tiny.tower(seed=1).identity()
    tower.save(tmp_path / "a")
    load_tower(tmp_path / "a").save(tmp_path / "b")
    tiny.vila_u().save(tmp_path / "model")
    opened = (load_tower(tmp_path / "b"), load_tower(tmp_path / "model"))
    assert [one.identity() for one in opened] == [found, found]
    assert load(tmp_path / "model").tokenizer.identity() == found
    half = load_tower(tmp_path / "a", dtype=torch.bfloat16)
    assert half.identity() != found
    half.save(tmp_path / "half")
    assert load_tower(tmp_path / "half", dtype=torch.float32).identity() == half.identity()


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ("siglip.vision_model.embeddings.patch_embedding.bias", False),
        ("siglip.vision_model.encoder.layers.1.mlp.fc2.bias", False),
        ("quantizer.codebook.weight", False),
        ("siglip.vision_model.encoder.layers.2.mlp.fc2.bias", True),
        ("siglip.text_model.final_layer_norm.bias", True),
        ("quantizer.codebook.cluster_size_ema", True),
        ("decoder.conv_in.bias", True),
    ],
)
@torch.no_grad()
def test_identity_is_what_decides_the_codes(part: str, kept: bool) -> None:
    """The tower has three blocks, of which the last reads quantised features."""
    tower = tiny.tower()
    found, codes = tower.identity(), tower.encode(to_float(tiny.images(4)))
    vectors = tower.embed(codes)
    tensor = tower.state_dict()[part]
    tensor += torch.randn_like(tensor)
    assert (tower.identity() == found) is kept
    again = tower.encode(to_float(tiny.images(4)))
    assert (torch.equal(again, codes) and torch.equal(tower.embed(codes), vectors)) is kept


def test_another_search_is_another_identity() -> None:
    tower = tiny.tower()
    found = tower.identity()
    tower.set_search("published")
    assert tower.identity() != found


def test_vectors_that_are_known_are_not_looked_up_again(model: VilaU) -> None:
    """A tower may round them otherwise than a sum of its codes' vectors would be."""
    codes = torch.zeros(3, 16, 3, dtype=torch.int64)
    vectors = torch.arange(3.0)[:, None, None].expand(3, 16, 32)
    some = Tokenized(codes, vectors).at(torch.tensor([2, 0]))
    assert some.vectors is not None
    assert torch.equal(some.vectors[:, 0, 0], torch.tensor([2.0, 0.0]))
    assert torch.equal(model.embed_codes(*some), model.project(some.vectors))
