"""What the patch discriminator beside an image tokenizer holds and costs."""

from collections.abc import Mapping
from typing import Any

from vilau.costs.config import DISCRIMINATOR_DEFAULTS, Config, argument, arguments
from vilau.costs.counts import NOTHING, Count, norm

KERNEL = 4
PASSES = 8
"""Forward passes that a step's work on it is worth: the tower's term 1 forward and 1 back (its weights stay),
its own two 3 each."""
ADAPTIVE_PASSES = 1
"""The tower's term goes back once more for the adaptive weight."""
KEPT_PASSES = 3
"""Passes whose activations wait for the way back: one for the tokenizer, two of its own."""
R1_PASSES = 6
"""A pass forward, its gradient at the image, and the way back through both."""


def discriminator(given: Mapping[str, Any], image_size: int) -> Count:
    """Count a ``PatchDiscriminator`` for one image."""
    config = {**DISCRIMINATOR_DEFAULTS, **given}
    layers, channels = config["num_layers"], config["channels"]
    count, side, before = NOTHING, image_size, 3
    for number in range(layers + 2):
        last = number == layers + 1
        width = 1 if last else channels * min(2**number, 8)
        out = side // 2 if number < layers else side - 1
        bias, weights = number == 0 or last, before * width * KERNEL**2
        count += Count(weights + (width if bias else 0), 2 * weights * out**2, before * side**2)
        if not bias:
            count += norm(out**2, width)
        if not last:
            count += Count(0, 0, width * out**2)  # LeakyReLU's input
        side, before = out, width
    return count


def passes(given: Mapping[str, Any]) -> int:
    """Return how many forward passes over one image a step's work on it is worth."""
    config = {**DISCRIMINATOR_DEFAULTS, **given}
    adaptive = ADAPTIVE_PASSES if config["adaptive"] else 0
    return PASSES + adaptive + (R1_PASSES if config["r1_weight"] > 0 else 0)


def adversary(config: Config, image_size: int, perceptual: Count) -> tuple[Count, float]:
    """The discriminator, and what it adds to a sample's operations, averaged over the run."""
    if argument(config, "model", "adversarial_weight") == 0:
        return NOTHING, 0.0
    given = {**DISCRIMINATOR_DEFAULTS, **(arguments(config, "model").get("discriminator") or {})}
    count = discriminator(given, image_size)
    flops = passes(given) * count.flops
    if given["adaptive"]:
        flops += perceptual.flops  # the pixel losses go back twice
    steps = (config.get("trainer") or {}).get("max_steps")
    if isinstance(steps, int) and steps > 0:
        flops *= max(0.0, 1 - given["start_step"] / steps)
    return count, flops
