"""Whether drawings agree with their prompts in the eyes of a network of others: CLIP score, SigLIP's cosine."""

from typing import Any

import lightning.pytorch as pl
from torch import nn

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import ConfigError
from vilau.metrics.agreement import PairCosine, clip_score
from vilau.metrics.passport import SetFingerprint, weights_hash
from vilau.types import DrawingOutput, EmbedsPairs, Passport, PromptBatch


class GenerationAgreement(MeasuringCallback):
    """Logs how well drawings agree with their prompts, and with the prompts of other drawings for scale.

    * With a ``ClipScorer``: ``test/clip_score`` and ``test/clip_score_chance``, 0 to 100, torchmetrics' CLIP score.
    * With a ``SiglipScorer``: ``test/siglip_cosine`` and ``test/siglip_cosine_chance``, -1 to 1. This is no CLIP
      score: SigLIP's cosines have another range, and ``world-siglip`` knows drawn scenes alone.

    Args:
        scorer: ``vilau.models.scorers.ClipScorer`` or ``SiglipScorer``, with its ``source``.
    """

    def __init__(self, scorer: EmbedsPairs) -> None:
        super().__init__()
        if not isinstance(scorer, nn.Module):
            raise ConfigError(
                f"GenerationAgreement.scorer is a {type(scorer).__name__}; write {{class_path: "
                "vilau.models.scorers.ClipScorer, init_args: {source: ...}}."
            )
        self.scorer, self.network = scorer, scorer
        self.cosine: PairCosine | None = None
        self.prompts = SetFingerprint()

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last drawings; how wide features are is learnt from the first."""
        self.network.to(pl_module.device)
        self.cosine = None
        self.prompts.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Embed a batch's drawings and prompts."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, DrawingOutput):
            return False
        images = self.scorer.image_features(outputs.images)
        texts = self.scorer.text_features(list(batch.prompts))
        if self.cosine is None:
            self.cosine = PairCosine(images.shape[-1]).to(pl_module.device)
        self.cosine.update(images, texts)
        self.prompts.update(texts=batch.prompts)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        assert self.cosine is not None
        digest, count = self.prompts.compute()
        is_clip = self.scorer.kind == "clip"
        name = "clip_score" if is_clip else f"{self.scorer.kind}_cosine"
        for key, value in self.cosine.compute().items():
            passport = Passport(
                metric="CLIP score (vilau, torchmetrics' definition)" if is_clip else name,
                features=f"{self.scorer.name} {weights_hash(self.network.state_dict())}",
                reference=f"prompts {digest}",
                num_samples=count,
                details=("with the prompts of others; " if key == "chance" else "")
                + self.scorer.preparation,
            )
            full = f"{split}/{name}" + ("_chance" if key == "chance" else "")
            self.report(pl_module, full, clip_score(value) if is_clip else value, passport)
