"""What the contrastive loss does to the shared encoder, and what of the alignment survives quantisation.

VILA-U, Table 6.
"""

from typing import Any

import torch
from torch import Tensor

from vilau.layers.pixels import to_float
from vilau.training.tower import TowerTraining
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch


class ContrastiveAblation(TowerTraining):
    """``TowerTraining`` that also measures the conflict between its two losses.

    Every ``measure_every_n_steps`` it logs, for each encoder block that both losses train, the cosine between
    the gradient of the reconstruction terms and that of the contrastive term, and the ratio of their norms
    (``train/gradient_cosine_block<i>``, ``train/gradient_ratio_block<i>``; ratio = contrastive / reconstruction).
    Zero-shot features are given for the quantised image, as always, and for its first depths alone and
    for the continuous features before quantisation.
    """

    def __init__(self, *args: Any, measure_every_n_steps: int = 50, **kwargs: Any) -> None:
        """See ``TowerTraining`` for the other arguments."""
        super().__init__(*args, **kwargs)
        self.measure_every_n_steps = measure_every_n_steps

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """A training step; now and then one more backward pass per loss to compare them."""
        if self.global_step % self.measure_every_n_steps == 0:
            self._measure_conflict(batch)
        return super().training_step(batch, batch_idx)

    def _measure_conflict(self, batch: ImageTextBatch) -> None:
        if self.weights["contrastive_weight"] == 0:
            return
        quantizer = self.tower.quantizer
        quantizer.eval()  # a measurement must not move the codebook
        seen = self.tower(to_float(batch.images))
        quantizer.train()
        losses = self.loss_terms(seen, batch)
        blocks = list(self.tower.siglip.vision_model.encoder.layers[:-1])
        parameters = [list(block.parameters()) for block in blocks]
        flat = [p for block in parameters for p in block]
        pixel = torch.autograd.grad(self.reconstruction_total(losses), flat, retain_graph=True)
        aligned = torch.autograd.grad(losses["contrastive"], flat)
        start = 0
        for number, block in enumerate(parameters):
            here = slice(start, start + len(block))
            a, b = (torch.cat([g.flatten() for g in grads[here]]) for grads in (pixel, aligned))
            cosine = torch.nn.functional.cosine_similarity(a, b, dim=0)
            self.log(f"train/gradient_cosine_block{number}", cosine)
            self.log(f"train/gradient_ratio_block{number}", b.norm() / a.norm().clamp(min=1e-12))
            start += len(block)

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete image, and of what stands before and partway through quantisation."""
        tower = self.tower
        features = tower.features(to_float(batch.images))
        quantized = tower.quantizer(features)
        others = {"unquantized": tower.pooled(features)}
        for d in range(1, tower.spec.depth):
            others[f"depth{d}"] = tower.pooled(tower.quantizer.embed(quantized.codes, upto=d))
        return EmbeddingOutput(tower.pooled(quantized.features), others)
