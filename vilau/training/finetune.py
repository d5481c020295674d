"""Supervised fine-tuning on instructions: questions, answers and drawing requests in one format."""

from vilau.models.vila_u.model import VilaU
from vilau.training.base import given
from vilau.training.optimizers import OptimizerConfig
from vilau.training.pretrain import LanguageTraining


class SupervisedFineTuning(LanguageTraining):
    """Go on from a pretrained model; the tower stays frozen."""

    def __init__(
        self,
        checkpoint: str,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 3.0,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Start from the ``model`` folder of a pretraining run."""
        optimizer = given(OptimizerConfig(learning_rate=1e-4), optimizer)
        super().__init__(
            optimizer,
            caption_dropout=caption_dropout,
            loss_weights={"text": text_weight, "visual": visual_weight},
            guidance_scale=guidance_scale,
        )
        self.remember(
            checkpoint=checkpoint,
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            optimizer=optimizer,
        )
        self.model = VilaU.load(checkpoint)
