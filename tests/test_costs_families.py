"""Costs of VARGPT and of convolutional image tokenizers: those of what is built and run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import tiny
from tests.test_costs import config, measured, numbers
from vilau.costs import estimate, scale_counts
from vilau.layers.pixels import to_float
from vilau.models.liquid.config import TokenizerConfig as OneGridConfig
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.sizes import LanguageConfig
from vilau.models.vargpt.config import SCALES, DecoderConfig, ReaderConfig
from vilau.models.vargpt.config import TokenizerConfig as ScalesConfig
from vilau.models.vargpt.decoder import ScaleDecoder
from vilau.models.vargpt.reader import build_vision
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import LiquidPretraining, VargptPretraining
from vilau.training.tokenizer import LiquidTokenizerTraining, VargptTokenizerTraining

CONV: dict[str, Any] = {
    "image_size": 16, "channels": 8, "multipliers": [1, 1, 2], "num_res_blocks": 1, "embed_dim": 8,
    "codebook_size": 24, "norm_groups": 4,
}  # fmt: skip
SCALED = {**CONV, "scales": [1, 2, 4]}
LANGUAGE = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 48}
READER = {
    "pretrained": None, "image_size": 12, "patch_size": 4, "hidden_size": 16, "num_layers": 3, "num_heads": 2,
    "mlp_size": 24,
}  # fmt: skip
DECODER = {"num_layers": 2, "width": 24, "num_heads": 2}
PICTURES = {
    "class_path": "vilau.data.mixture.MultimodalMixture",
    "init_args": {"global_batch_size": 4, "image_to_text_share": 0.5, "text_to_image_share": 0.5},
}


def conv(kind: Any, sizes: dict[str, Any]) -> Any:
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in sizes.items()})


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("codes", [{}, {"initialisation": "data", "restart_unused_codes": True}])
@pytest.mark.parametrize(
    ("name", "sizes", "more"),
    [
        ("VargptTokenizerTraining", SCALED, {}),
        ("VargptTokenizerTraining", {**SCALED, "multipliers": [1, 2], "patch": 2}, {}),
        ("LiquidTokenizerTraining", CONV, {"average": {}}),
        ("LiquidTokenizerTraining", {**CONV, "attention_grids": [8]}, {"adversarial_weight": 0.5}),
    ],
)
def test_a_tokenizer_has_the_parameters_that_are_counted(
    name: str, sizes: dict[str, Any], more: dict[str, Any], codes: dict[str, Any], published: bool
) -> None:
    module: Any = {
        "VargptTokenizerTraining": VargptTokenizerTraining,
        "LiquidTokenizerTraining": LiquidTokenizerTraining,
    }[name]
    given = codes if published else {**sizes, **codes}
    settings = {"perceptual_weight": 0.0, "discriminator": {"num_layers": 1, "channels": 4}, **more}
    kind = ScalesConfig if name.startswith("Vargpt") else OneGridConfig
    with torch.device("meta"):
        built = module(conv(kind, given), **settings)
    cost = estimate(config(f"tokenizer.{name}", {"tokenizer": given, **settings}))
    assert cost is not None
    assert (cost["parameters"], cost["trained_parameters"]) == numbers(built)
    tokens = built.tokenizer.spec.num_positions * 8
    assert cost["tokens_per_step"] == tokens


@pytest.mark.parametrize(
    "sizes",
    [
        conv(ScalesConfig, SCALED),
        conv(ScalesConfig, {**SCALED, "multipliers": [1, 2], "patch": 2}),
        conv(OneGridConfig, {**CONV, "attention_grids": [8], "num_res_blocks": 2}),
    ],
    ids=["scales", "patches", "one grid"],
)
def test_a_tokenizers_operations_equal_torchs_own_count(sizes: Any) -> None:
    count = scale_counts.tokenizer(sizes)
    kind: Any = MultiScaleVQVAE if isinstance(sizes, ScalesConfig) else VQGAN
    torch.manual_seed(0)
    model, images = kind(sizes).eval(), to_float(tiny.images(2))
    assert measured(lambda: model.coded(images), samples=2) == count.encoder.flops
    assert measured(lambda: model.encode(images), samples=2) == count.coding_flops
    codes = model.encode(images)
    decoding = count.pixels.flops + (count.codes.flops if kind is MultiScaleVQVAE else 0)
    assert measured(lambda: model.decode(codes), samples=2) == decoding
    assert sum(b.numel() for b in model.buffers()) == count.buffers


def test_what_predicts_scales_is_counted_as_it_runs() -> None:
    sizes, own = conv(ScalesConfig, SCALED), DecoderConfig(**DECODER, drop_path=0.0)
    torch.manual_seed(0)
    decoder = ScaleDecoder(own, scales=(1, 2, 4), codebook_size=24, code_width=8).eval()
    cells, rest = (
        scale_counts.scale_cells(own, sizes),
        scale_counts.scale_decoder(own, sizes, images=2),
    )
    assert cells.parameters + rest.parameters == sum(p.numel() for p in decoder.parameters())
    condition = decoder.condition(torch.zeros(1, dtype=torch.int64))
    maps = torch.zeros(2, 20, 8)
    assert measured(lambda: decoder.embed(maps, condition), samples=2) == cells.flops
    found = measured(lambda: decoder(torch.zeros(2, 21, 24), condition))
    # Torch counts all pairs of cells where a mask leaves some out, and the condition once for both images.
    unseen = 21**2 - (1 + 4 * 5 + 16 * 21)
    told = 2 * 24 * (6 * 24 * own.num_layers + 2 * 24)
    assert found == rest.flops + 2 * own.num_layers * 4 * unseen * 24 - told


@pytest.mark.parametrize(
    "changes",
    [{}, {"kind": "siglip", "activation": "gelu_pytorch_tanh"}, None],
    ids=["clip", "siglip", "published"],
)
def test_an_image_encoder_is_counted_as_it_is_built(changes: dict[str, Any] | None) -> None:
    sizes = ReaderConfig() if changes is None else ReaderConfig(**{**READER, **changes})
    count = scale_counts.vision(sizes)
    with torch.device("meta"):
        built = build_vision(sizes)
    assert count.parameters == sum(p.numel() for p in built.parameters())
    if changes is not None:
        vision = build_vision(sizes).eval()
        vision.set_attn_implementation("eager")
        pixels = torch.zeros(1, 3, 12, 12)
        assert measured(lambda: vision(pixel_values=pixels)) == pytest.approx(count.flops, rel=0.02)


@pytest.mark.parametrize("null", ["prompt", "learned"])
@pytest.mark.parametrize(
    "trained", [None, ["projectors"], ["language", "reader"], ["decoder", "projectors"]]
)
def test_vargpt_costs_what_is_built(tmp_path: Path, trained: list[str] | None, null: str) -> None:
    """From the config of its stage and of the tokenizer's, and from the folders that these leave."""
    tokenizer = config(
        "tokenizer.VargptTokenizerTraining", {"tokenizer": SCALED, "perceptual_weight": 0.0}
    )
    first = trained if null == "prompt" or trained is None or "language" in trained else None
    arguments = {
        "language": LANGUAGE, "reader": READER, "decoder": DECODER,
        "prompt": {"system": "", "null": null}, "trained": first,
    }  # fmt: skip
    name = "pretrain.VargptPretraining"
    stage = config(name, arguments, data=PICTURES, inputs={"model.tower_checkpoint": tokenizer})
    tiny.over_scales().save(tmp_path / "tokenizer")
    parts: Any = LanguageConfig(**LANGUAGE), ReaderConfig(**READER), DecoderConfig(**DECODER)
    prompt = type(tiny.PROMPT)(**{**vars(tiny.PROMPT), "null": null})
    folder = str(tmp_path / "tokenizer")
    module = VargptPretraining(folder, *parts, prompt, trained=first)
    cost = estimate(stage)
    assert cost is not None
    assert (cost["parameters"], cost["trained_parameters"]) == numbers(module)
    assert estimate(config(name, {**arguments, "tower_checkpoint": folder}, data=PICTURES)) == cost

    module.export(str(tmp_path / "model"))
    given = {"checkpoint": str(tmp_path / "model"), "trained": trained}
    tuned = config("finetune.SupervisedFineTuning", given, data=PICTURES)
    cost = estimate(tuned)
    assert cost is not None
    assert (cost["parameters"], cost["trained_parameters"]) == numbers(
        SupervisedFineTuning(str(tmp_path / "model"), trained=trained)
    )
    asked = {
        "class_path": "vilau.data.benchmarks.WorldBenchmarks",
        "init_args": {"global_batch_size": 4},
    }
    measuring = config(
        "evaluate.Evaluation", {}, data=asked, command="test", inputs={"model.checkpoint": tuned}
    )
    cost = estimate(measuring)
    assert cost is not None
    assert cost["parameters"] == numbers(Evaluation(str(tmp_path / "model")))[0]
    assert cost["flops"] > 0


def test_a_document_of_vargpt_has_the_length_of_what_it_shows(tmp_path: Path) -> None:
    """Nine patches of a picture to read, 21 cells of one to draw."""
    tiny.over_scales().save(tmp_path)
    arguments = {
        "tower_checkpoint": str(tmp_path), "language": LANGUAGE, "reader": READER, "decoder": DECODER,
    }  # fmt: skip
    found = []
    for read in (1.0, 0.0):
        data = {
            **PICTURES,
            "init_args": {
                "global_batch_size": 1, "image_to_text_share": read, "text_to_image_share": 1 - read,
            },
        }  # fmt: skip
        cost = estimate(config("pretrain.VargptPretraining", arguments, data=data))
        assert cost is not None
        found.append(cost["tokens_per_step"])
    assert found[1] - found[0] == 21 - 9


def test_liquid_around_a_vqgan_costs_what_is_built(tmp_path: Path) -> None:
    trained = config("tokenizer.LiquidTokenizerTraining", {"tokenizer": {**CONV, "z_channels": 8}})
    tiny.vqgan().save(tmp_path / "tokenizer")
    arguments = {"language": LANGUAGE, "prompt": {"system": ""}}
    name, folder = "pretrain.LiquidPretraining", str(tmp_path / "tokenizer")
    module = LiquidPretraining(folder, LanguageConfig(**LANGUAGE), tiny.PROMPT)
    stages = (
        config(name, arguments, data=PICTURES, inputs={"model.tower_checkpoint": trained}),
        config(name, {**arguments, "tower_checkpoint": folder}, data=PICTURES),
    )
    for stage in stages:
        cost = estimate(stage)
        assert cost is not None
        assert (cost["parameters"], cost["trained_parameters"]) == numbers(module)
    module.export(str(tmp_path / "model"))
    tuned = config(
        "finetune.SupervisedFineTuning", {"checkpoint": str(tmp_path / "model")}, data=PICTURES
    )
    cost = estimate(tuned)
    assert cost is not None
    assert cost["parameters"] == numbers(module)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder_checkpoint": "var_d16.pth"},  # its sizes stand in a file of gigabytes
        {"reader": {"pretrained": "me/encoder"}},
        {"tower_checkpoint": "nowhere"},
    ],
)
def test_what_cannot_be_known_of_vargpt_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny.over_scales().save(tmp_path)
    arguments = {"tower_checkpoint": str(tmp_path), "language": LANGUAGE, "reader": READER}
    assert estimate(config("pretrain.VargptPretraining", arguments, data=PICTURES)) is not None
    stage = config("pretrain.VargptPretraining", {**arguments, **changes}, data=PICTURES)
    assert estimate(stage) is None


def test_published_sizes_agree_with_those_on_record() -> None:
    """VAR's tokenizer 108,948,355 parameters, 30 blocks 2,010,020,356 less a table of classes (reference A1, A2)."""
    count = scale_counts.tokenizer(ScalesConfig())
    assert count.parameters == 108_948_355
    assert count.positions == 680 == sum(side * side for side in SCALES[256])
    decoder = DecoderConfig()
    whole = scale_counts.scale_cells(decoder, ScalesConfig()) + scale_counts.scale_decoder(
        decoder, ScalesConfig(), images=1
    )
    assert whole.parameters == 2_010_020_356 - (1001 - 2) * 1920
    assert scale_counts.tokenizer(OneGridConfig()).parameters == 68_718_467
