"""The two published sizes, built on the meta device: parameter counts, names and shapes."""

import json

import pytest
import torch

from tests.models.published import SHARED
from vilau.models.language import MetaTokenizer, build_language_model
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.names import published_head, published_projector, published_tower
from vilau.models.vila_u.published.sizes import vila_u_256, vila_u_384
from vilau.models.vila_u.tower import VisionTower

KEYS = SHARED / "reference"
LLAMA = 6_738_448_384
"""Numbers in LLaMA-2-7B with four more tokens."""


def build(sizes):
    with torch.device("meta"):
        return VilaU(
            tower=VisionTower(sizes.tower),
            language=build_language_model(sizes.language),
            language_config=sizes.language,
            head_config=sizes.head,
            prompt=sizes.prompt,
            words=MetaTokenizer(sizes.language.vocab_size),
        )


@pytest.fixture(scope="module", params=["256", "384"])
def built(request):
    return request.param, build({"256": vila_u_256, "384": vila_u_384}[request.param]())


def shapes(state):
    return {name: list(tensor.shape) for name, tensor in state.items()}


def tower_shapes(model):
    tower, head = model.tokenizer.state_dict(), model.head.state_dict()
    return shapes(published_tower(tower) | published_head(head))


def count(shapes, start=""):
    return sum(
        torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith(start)
    )


COUNTS = {
    "256": {
        "": 1_255_580_805,
        "rqvaesiglip.siglip_model.text_model": 336_194_560,
        "rqvaesiglip.siglip_model.vision_model": 315_956_224,
        "rqvaesiglip.quantizer": 33_571_840,
        "rqvaesiglip.post_quant_conv": 262_400,
        "rqvaesiglip.decoder": 42_449_795,
        "rqtransformer": 527_145_984,
    },
    "384": {
        "": 1_485_976_117,
        "rqvaesiglip.siglip_model.text_model": 449_734_896,
        "rqvaesiglip.siglip_model.vision_model": 428_225_600,
        "rqvaesiglip.quantizer": 37_766_272,
        "rqvaesiglip.post_quant_conv": 295_168,
        "rqvaesiglip.decoder": 42_449_795,
        "rqtransformer": 527_504_384,
    },
}
TENSORS = {"256": 1096, "384": 1192}
GRIDS = {"256": (16, 4, 256), "384": (27, 16, 384)}


def test_sizes_and_counts(built):
    name, model = built
    tower = tower_shapes(model)
    assert {part: count(tower, part) for part in COUNTS[name]} == COUNTS[name]
    assert len(tower) == TENSORS[name]
    assert sum(p.numel() for p in model.language.parameters()) == LLAMA
    spec = model.tokenizer.spec
    grid, depth, side = GRIDS[name]
    assert (spec.levels, spec.depth, spec.image_size) == (((grid, grid),), depth, side)
    assert spec.codebook_size == 16384
    assert model.language.config.rope_parameters["factor"] == 2.0


def test_the_384_decoder_gives_384_pixels():
    """27 x 27 features are resized to 24 x 24 cells, not decoded to 432 pixels."""
    sizes = vila_u_384()
    with torch.device("meta"):
        tower = VisionTower(sizes.tower)
        codes = torch.zeros(1, 729, 16, dtype=torch.int64)
        assert tower.pixels(torch.zeros(1, 729, 1152)).shape == (1, 3, 384, 384)
        assert tower.embed(codes).shape == (1, 729, 1152)


def listed(file, section):
    """Name -> shape of one section of a reference list, second names of shared tensors left out."""
    found, inside = {}, section is None
    for line in file.read_text().splitlines():
        if section is not None and line.startswith("===="):
            inside = line.strip("= ") == section
        fields = line.split("\t")
        if inside and len(fields) > 1 and not line.startswith("#") and "ALIAS" not in line:
            found.setdefault(fields[0], []).append(json.loads(fields[1]))
    return found


@pytest.mark.skipif(not KEYS.is_dir(), reason=f"no reference lists at {KEYS}")
def test_every_name_and_shape_is_the_published_one(built):
    name, model = built
    tower = listed(KEYS / "vilau_tower_keys.txt", name)
    assert {key: [shape] for key, shape in tower_shapes(model).items()} == tower
    llm = listed(KEYS / "vilau_llm_keys.txt", None)
    language = {key: shape for key, shape in llm.items() if not key.startswith("layers.")}
    assert {key: [s] for key, s in shapes(model.language.state_dict()).items()} == language
    assert len(language) == 291
    projector = shapes(published_projector(model.projector.state_dict()))
    assert set(projector) == {key for key in llm if key.startswith("layers.")}
    assert all(shape in llm[key] for key, shape in projector.items())
