"""What the contrastive loss does to the shared encoder, and what of the alignment survives quantisation.

VILA-U, Table 6.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vilau.layers.pixels import to_float
from vilau.training.tower import TowerTraining
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch


class ContrastiveAblation(TowerTraining):
    """``TowerTraining`` that also measures the conflict between its two losses.

    Every ``measure_every_n_steps`` it logs, for each encoder block that both losses train, the cosine between
    the gradient of the reconstruction terms and that of the contrastive term, and the ratio of their norms
    (``train/gradient_cosine_block<i>``, ``train/gradient_ratio_block<i>``; ratio = contrastive / reconstruction,
    both as weighted in training). Measuring changes nothing of the training.
    Zero-shot features are given for the quantised image, as always, and for its first depths alone and
    for the continuous features before quantisation.
    """

    def __init__(self, *args: Any, measure_every_n_steps: int = 100, **kwargs: Any) -> None:
        """See ``TowerTraining`` for the other arguments."""
        super().__init__(*args, **kwargs)
        self.remember(measure_every_n_steps=measure_every_n_steps)
        self.measure_every_n_steps = measure_every_n_steps

    def on_train_batch_start(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Now and then compare the two losses' gradients on this batch."""
        blocks = self.tower.siglip.vision_model.encoder.layers[:-1]
        if self.weights["contrastive_weight"] == 0 or not any(
            p.requires_grad for p in blocks.parameters()
        ):
            return
        if self.global_step % self.measure_every_n_steps == 0:
            self._measure_conflict(batch)

    def compared_losses(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """The reconstruction and the contrastive part of the training loss."""
        seen = self.tower(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        reconstruction = self.reconstruction_total(losses)
        if self.adversary_acts:
            reconstruction = reconstruction + self.adversarial_total(seen, losses)[0]
        return reconstruction, torch.as_tensor(self.contrastive_total(losses))

    def _measure_conflict(self, batch: ImageTextBatch) -> None:
        quantizer, was_training = self.tower.quantizer, self.tower.quantizer.training
        cards = [self.device] if self.device.type == "cuda" else []
        quantizer.eval()  # a measurement must neither move the codebook nor use up random numbers
        with torch.random.fork_rng(devices=cards):
            pixel, aligned = (self._block_gradients(batch, part) for part in (0, 1))
        quantizer.train(was_training)
        for number, (a, b) in enumerate(zip(pixel, aligned, strict=True)):
            squares, products = (_dot(a, a), _dot(b, b)), _dot(a, b)
            norm_a, norm_b = (square.sqrt().clamp(min=1e-12) for square in squares)
            cosine = (products / (norm_a * norm_b)).clamp(-1.0, 1.0)
            self.log(f"train/gradient_cosine_block{number}", cosine)
            self.log(f"train/gradient_ratio_block{number}", norm_b / norm_a)

    def _block_gradients(self, batch: ImageTextBatch, part: int) -> list[list[Tensor]]:
        """Gradients of one of ``compared_losses`` on the weights of each encoder block.

        Through ``backward``, the one way to whole gradients when weights are sharded; what other
        batches have left in the gradients is put back.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        before = [p.grad for p in trained]
        self.zero_grad(set_to_none=True)
        with self.trainer.strategy.precision_plugin.train_step_context():
            loss = self.compared_losses(batch)[part]
        loss.backward()
        blocks = self.tower.siglip.vision_model.encoder.layers[:-1]
        found = [[p.grad for p in block.parameters() if p.grad is not None] for block in blocks]
        for parameter, gradient in zip(trained, before, strict=True):
            parameter.grad = gradient
        return found

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete image, and of what stands before and partway through quantisation."""
        tower = self.tower
        features = tower.features(to_float(batch.images))
        quantized = tower.quantizer(features)
        others = {"unquantized": tower.pooled(features)}
        for d in range(1, tower.spec.depth):
            others[f"depth{d}"] = tower.pooled(tower.quantizer.embed(quantized.codes, upto=d))
        return EmbeddingOutput(tower.pooled(quantized.features), others)


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Inner product of two gradients of the same weights, gathered from all ranks that hold parts."""
    total = torch.stack(
        [_whole((a.float() * b.float()).sum()) for a, b in zip(left, right, strict=True)]
    )
    return total.sum()


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
