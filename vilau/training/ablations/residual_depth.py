"""What each residual depth is worth: every truncation of one tower, measured (VILA-U section 3.1, RQ-VAE section 4)."""

import torch
from torch import Tensor

from vilau.layers.pixels import to_float, to_uint8
from vilau.training.tower import TowerTraining
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch, TowerOutput


class ResidualDepthAblation(TowerTraining):
    """``TowerTraining`` whose every evaluation also looks at the first d depths alone, d = 1 ... D.

    The sum over the first d codes is decoded and classified as the sum over all is; callbacks then log, for each d,
    ``val/rfid_d<d>``, ``val/psnr_d<d>``, ``val/ssim_d<d>``, ``val/lpips_d<d>`` (``ReconstructionFID``),
    ``val/zero_shot_top1_depth<d>`` (``ZeroShot``) and ``val/residual_energy_d<d>`` (``CodebookUsage``).
    Training is that of ``TowerTraining``: no depth is left out in it, so that a truncation is not what a tower
    trained with fewer depths would be.
    """

    def measure(
        self, batch: ImageTextBatch | LabelledImageBatch
    ) -> tuple[TowerOutput | EmbeddingOutput, dict[str, Tensor]]:
        """See ``TowerTraining``; with ``TowerOutput.truncated``."""
        output, losses = super().measure(batch)
        if isinstance(output, TowerOutput):
            depths = range(1, self.tower.spec.depth)
            fewer = [to_uint8(self.tower.decode(output.codes, upto=d)) for d in depths]
            output.truncated = torch.stack([*fewer, output.reconstructions])
        return output, losses

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete image, and of its first d depths alone."""
        tower = self.tower
        quantized = tower.quantizer(tower.features(to_float(batch.images)))
        depths = range(1, tower.spec.depth + 1)
        others = {
            f"depth{d}": tower.pooled(tower.quantizer.embed(quantized.codes, upto=d))
            for d in depths
        }
        return EmbeddingOutput(tower.pooled(quantized.features), others)
