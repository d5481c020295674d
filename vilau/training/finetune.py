"""Supervised fine-tuning on instructions: questions, answers and drawing requests in one format."""

from collections.abc import Sequence

import torch

from vilau.models.causal.model import CausalModel
from vilau.models.loading import load
from vilau.training.base import given
from vilau.training.language import LanguageTraining
from vilau.training.optimizers import OptimizerConfig
from vilau.training.step_counts import LossAverage


class SupervisedFineTuning(LanguageTraining):
    """Go on from a pretrained model; what makes its codes stays frozen."""

    def __init__(
        self,
        checkpoint: str,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 3.0,
        loss_average: LossAverage = "global",
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
        optimizer: OptimizerConfig | None = None,
        trained: Sequence[str] | None = None,
    ) -> None:
        """Start from a pretrained model, which is whatever ``vilau.load`` opens; see ``MultimodalPretraining``.

        ``trained`` names the parts that learn, None: all. Parts are those of the model's ``learning_parts``:
        ``language`` of every family; ``projector`` and ``head`` (the depth transformer) of VILA-U; ``reader``,
        ``decoder`` and ``projectors`` of VARGPT, see ``VargptPretraining``.
        """
        optimizer = given(OptimizerConfig(learning_rate=1e-4), optimizer)
        super().__init__(
            optimizer,
            own={
                "checkpoint": checkpoint,
                "trained": None if trained is None else list(trained),
            },
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            loss_average=loss_average,
            packing=packing,
            length_groups=length_groups,
            share_images=share_images,
        )
        model = load(checkpoint, dtype=torch.float32)
        assert isinstance(model, CausalModel)  # as all that load opens are
        self.model = model.train()
        if trained is not None:
            self.model.train_only(trained)
