"""What ``vilau.costs`` counts of tower training, against real modules: discriminator, LPIPS, averages, starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from tests.test_costs import TINY_DECODER, TINY_QUANTIZER, TINY_SIGLIP, config, numbers
from vilau.costs import counts, estimate
from vilau.costs.config import DISCRIMINATOR_DEFAULTS
from vilau.costs.discriminator import discriminator, passes
from vilau.layers.adversarial import PatchDiscriminator
from vilau.layers.perceptual import PerceptualLoss
from vilau.layers.quantize import ResidualQuantizer
from vilau.models.sizes import SiglipSizes
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig
from vilau.training.adversarial import Adversary, DiscriminatorConfig
from vilau.training.alignment import AlignmentConfig
from vilau.training.clip import ClipPretraining
from vilau.training.tower import TowerTraining
from vilau.training.tower_start import StartConfig

OTHER = TINY_SIGLIP | {"patch_size": 4, "hidden_size": 32, "num_layers": 2, "text_layers": 1}
DECODERS = {8: TINY_DECODER, 4: TINY_DECODER | {"output_patch": 2}}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # lpips on the meta device


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("siglip")
    with torch.device("meta"):
        ClipPretraining(SiglipSizes(**TINY_SIGLIP)).export(str(folder))  # type: ignore[arg-type]
    return str(folder)


def built(siglip: str, args: dict[str, Any]) -> TowerTraining:
    """The module that the config's arguments build, on the meta device."""
    kinds = {
        "quantizer": QuantizerConfig, "decoder": DecoderConfig, "discriminator": DiscriminatorConfig,
        "alignment": AlignmentConfig, "start": StartConfig,
    }  # fmt: skip
    made = {}
    for key, value in args.items():
        if key == "decoder":  # lists in a config, tuples in the dataclass
            value = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}  # noqa: PLW2901
        made[key] = kinds[key](**value) if key in kinds else value
    with torch.device("meta"):
        return TowerTraining(**{"pretrained": siglip, **made})  # type: ignore[arg-type]


def told(siglip: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    cost = estimate(config("tower.TowerTraining", {"pretrained": siglip, **args}, **more))
    assert cost is not None
    return cost


PLAIN: dict[str, Any] = {
    "quantizer": TINY_QUANTIZER, "decoder": TINY_DECODER, "perceptual_weight": 0.0,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lpips": {"perceptual_weight": 1.0},
    "discriminator": {"adversarial_weight": 0.75},
    "another discriminator": {
        "adversarial_weight": 0.1,
        "discriminator": {"num_layers": 1, "channels": 24, "lecam_weight": 1.0},
    },
    "averages": {"average": {"decay": 0.9}, "freeze_text": False},
    "no alignment": {"contrastive_weight": 0.0, "average": {}},
    "everything": {"adversarial_weight": 0.75, "perceptual_weight": 1.0, "average": {"decay": 0.9}},
    "frozen vision": {"freeze_vision": True},
    "softmax": {"alignment": {"loss": "softmax"}},
    "patches": {
        "decoder": {
            "kind": "patch", "channels": 32, "multipliers": (1,), "z_channels": 24, "output_patch": 8,
            "num_layers": 2, "num_heads": 4, "head_size": 40,
        },
    },
    "codes by gradient": {"quantizer": TINY_QUANTIZER | {"learning": "gradient"}, "average": {}},
    "random": {"start": {"initialisation": "random"}, "freeze_text": False},
    "sizes of its own": {
        "start": {"initialisation": "random", "siglip": OTHER}, "freeze_text": False, "decoder": DECODERS[4],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_memory_and_disk_are_those_of_the_module(siglip: str, name: str) -> None:
    args = {**PLAIN, **VARIANTS[name]}
    module, cost = built(siglip, args), told(siglip, args)
    total, trained = numbers(module)
    assert (cost["parameters"], cost["trained_parameters"]) == (total, trained)
    average = module.average
    buffers = sum(b.numel() for b in module.tower.buffers() if b.is_floating_point())
    product = 4 * (sum(p.numel() for p in module.tower.parameters()) + buffers)
    if average is not None:
        buffers += sum(b.numel() for b in average.buffers())
    checkpoint = 4 * (total + buffers) + 8 * trained
    assert cost["disk_bytes"] == product + 2 * checkpoint
    # Beside activations: weights, gradients and two averages of AdamW, and buffers.
    without = told(siglip, args, batch=0)
    assert without["memory_bytes_per_device"] == 4 * (total + 3 * trained + buffers)


def test_a_checkpoint_gives_sizes_that_are_not_written(siglip: str, tmp_path: Path) -> None:
    other = {**PLAIN, **VARIANTS["sizes of its own"]}
    folder = tmp_path / "tower"
    built(siglip, other).export(str(folder))
    start = {"initialisation": "tower", "checkpoint": str(folder)}
    args = {"perceptual_weight": 0.0, "start": start}
    total = numbers(built(siglip, args))[0]
    assert told(siglip, args)["parameters"] == total
    # In a study it is an earlier stage's product.
    start = {"initialisation": "tower"}
    stage = config("tower.TowerTraining", {"perceptual_weight": 0.0, "start": start})
    earlier = config("tower.TowerTraining", {"pretrained": siglip, **other})
    cost = estimate(stage, {"model.start.checkpoint": earlier})
    assert cost is not None
    assert cost["parameters"] == total
    assert estimate(stage) is None  # of nowhere
    # Beside another initialisation it gives quantiser and decoder alone.
    paired = {**PLAIN, "start": {"initialisation": "siglip"}}
    cost = estimate(
        config("tower.TowerTraining", {"pretrained": siglip, "perceptual_weight": 0.0}),
        {"model.start.checkpoint": config("tower.TowerTraining", {"pretrained": siglip, **paired})},
    )
    assert cost is not None
    assert cost["parameters"] == numbers(built(siglip, paired))[0]


# ---------------------------------------------------------------------- operations


class Untracked(ModuleTracker):
    """Counts without module names: their hooks refuse a gradient of a gradient."""

    parents = {"Global"}  # noqa: RUF012 - torch's own attribute

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Untracked:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def measured(run: Any) -> int:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("given", [{}, {"num_layers": 3, "channels": 16}])
def test_a_pass_of_the_discriminator_is_torchs_own_count(given: dict[str, Any]) -> None:
    settings = {key: {**DISCRIMINATOR_DEFAULTS, **given}[key] for key in ("num_layers", "channels")}
    with torch.device("meta"):
        network, images = PatchDiscriminator(**settings), torch.zeros(1, 3, 48, 48)
    count = discriminator(given, 48)
    assert measured(lambda: network(images)) == count.flops
    assert sum(p.numel() for p in network.parameters()) == count.parameters


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("r1", [0.0, 10.0])
def test_the_passes_of_a_step_with_a_discriminator(adaptive: bool, r1: float) -> None:
    given = {"adaptive": adaptive, "r1_weight": r1, "channels": 16}
    torch.manual_seed(0)
    adversary = Adversary(DiscriminatorConfig(**given), image_size=64)  # type: ignore[arg-type]
    last, real = torch.nn.Conv2d(3, 3, 1), torch.randn(2, 3, 64, 64)

    def step() -> None:
        fake = last(real)
        pixel = fake.square().mean()
        loss, _ = adversary.generator_terms(fake, pixel, last.weight)
        terms, _ = adversary.own_terms(real, fake)
        (loss + adversary.own_total(terms)).backward()

    found = measured(step) / 2
    count = discriminator(given, 64)
    assert found == pytest.approx(passes(given) * count.flops, rel=0.05)


def test_lpips_costs_three_passes_a_step() -> None:
    with torch.device("meta"):
        network = PerceptualLoss()  # without VGG's weights
    network = network.to_empty(device="cpu")
    images, targets = (torch.zeros(1, 3, 32, 32) for _ in range(2))
    images.requires_grad_()
    found = measured(lambda: network(images, targets).backward())
    assert found == pytest.approx(3 * counts.perceptual(32).flops, rel=0.05)


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_what_the_entropy_term_adds(siglip: str, learning: str) -> None:
    def passed(**changes: Any) -> int:
        torch.manual_seed(0)
        settings: dict[str, Any] = {**TINY_QUANTIZER, "learning": learning, **changes}
        module = ResidualQuantizer(width=48, **vars(QuantizerConfig(**settings)))
        features = torch.randn(2, 16, 48, requires_grad=True)

        def step() -> None:
            seen = module(features)
            losses = [seen.commitment_loss, seen.codebook_loss, seen.entropy_loss]
            torch.stack([loss for loss in losses if loss is not None]).sum().backward()

        return measured(step) // 2

    more = {"quantizer": {**TINY_QUANTIZER, "learning": learning, "entropy": True}}
    less = {"quantizer": {**TINY_QUANTIZER, "learning": learning}}
    plain, cost = told(siglip, {**PLAIN, **less}), told(siglip, {**PLAIN, **more})
    added = (cost["flops_per_step"] - plain["flops_per_step"]) / 8
    assert added == passed(entropy=True) - passed()


def test_what_a_discriminator_adds_to_a_stage(siglip: str) -> None:
    plain = told(siglip, PLAIN)
    rival = {"adversarial_weight": 0.75, "discriminator": {"channels": 32}}
    count = discriminator(rival["discriminator"], 32)
    whole = told(siglip, {**PLAIN, **rival})
    assert whole["flops"] - plain["flops"] == 9 * count.flops * plain["samples"]
    late = {**rival, "discriminator": {"channels": 32, "start_step": 75, "adaptive": False}}
    assert told(siglip, {**PLAIN, **late})["flops"] - plain["flops"] == pytest.approx(
        8 * count.flops * plain["samples"] / 4
    )
    lpips = told(siglip, {**PLAIN, "perceptual_weight": 1.0})
    both = told(siglip, {**PLAIN, **rival, "perceptual_weight": 1.0})
    more = 9 * count.flops + counts.perceptual(32).flops
    assert both["flops"] - lpips["flops"] == more * plain["samples"]
    assert both["memory_bytes_per_device"] - lpips["memory_bytes_per_device"] == (
        16 * count.parameters + 4 * 3 * count.kept * 8
    )


def test_a_frozen_encoder_costs_its_forward_pass_alone(siglip: str) -> None:
    plain, frozen = told(siglip, PLAIN), told(siglip, {**PLAIN, "freeze_vision": True})
    encoder = counts.siglip(SiglipSizes(**TINY_SIGLIP)).encoder  # type: ignore[arg-type]
    assert plain["flops_per_step"] - frozen["flops_per_step"] == 2 * encoder.flops * 8
    assert plain["memory_bytes_per_device"] - frozen["memory_bytes_per_device"] == (
        12 * encoder.parameters + 4 * encoder.kept * 8
    )


def test_defaults_are_the_discriminators_own() -> None:
    assert {name: getattr(DiscriminatorConfig(), name) for name in DISCRIMINATOR_DEFAULTS} == (
        DISCRIMINATOR_DEFAULTS
    )
