"""What a sample costs in training an image tokenizer of convolutions."""

from __future__ import annotations

from vilau.costs import counts, scale_counts
from vilau.costs.config import Config, UnknownSizesError, argument, arguments
from vilau.costs.counts import NOTHING
from vilau.costs.discriminator import KEPT_PASSES, adversary
from vilau.costs.families import trained_sizes
from vilau.costs.work import Work


def tokenizer_work(config: Config) -> Work:
    """Return the work of ``VargptTokenizerTraining`` and ``LiquidTokenizerTraining``."""
    sizes = trained_sizes(config)
    if sizes is None:
        raise UnknownSizesError
    part = scale_counts.tokenizer(sizes)
    lpips = argument(config, "model", "perceptual_weight") > 0
    perceptual = counts.perceptual(sizes.image_size) if lpips else NOTHING
    rival, rival_flops = adversary(config, sizes.image_size, perceptual)
    learns = part.encoder + part.pixels
    trained = part.parameters - part.unused
    averaged = arguments(config, "model").get("average") is not None
    return Work(
        parameters=part.parameters + perceptual.parameters + rival.parameters,
        trained=trained + rival.parameters,
        tokens=part.positions,
        train_flops=3 * (learns + perceptual + part.codes).flops + part.search.flops + rival_flops,
        forward_flops=part.coding_flops + part.pixels.flops,
        kept=learns.kept + perceptual.kept + KEPT_PASSES * rival.kept,
        buffers=part.buffers + (trained + 1 if averaged else 0),  # averages, and how many steps
        product=part.parameters + part.buffers,
    )
