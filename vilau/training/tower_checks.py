"""Settings of tower training that contradict one another, told before anything is computed."""

from lightning.pytorch import Trainer

from vilau.errors import ConfigError
from vilau.models.encoders.names import RANDOM
from vilau.training.tower_start import StartConfig


def check_frozen(
    start: StartConfig, freeze_text: bool, freeze_vision: bool, *, aligned: bool
) -> None:
    """Refuse to freeze what has learnt nothing."""
    if start.initialisation == "random" and freeze_text and aligned:
        raise ConfigError(
            "model.freeze_text is true, but start.initialisation: random leaves a text tower that has learnt "
            "nothing; write model.freeze_text: false."
        )
    if start.text == RANDOM and freeze_text and aligned:
        raise ConfigError(
            "model.freeze_text is true, but start.text: random leaves a text tower that has learnt nothing; write "
            "model.freeze_text: false."
        )
    if start.initialisation in ("random", "text") and freeze_vision and start.checkpoint is None:
        raise ConfigError(
            f"model.freeze_vision is true, but start.initialisation: {start.initialisation} leaves a vision "
            "encoder that has learnt nothing; write model.freeze_vision: false."
        )


def check_negatives(trainer: Trainer, negatives: str) -> None:
    """Refuse accumulated parts for a contrastive loss over whole steps."""
    parts = trainer.accumulate_grad_batches
    if negatives == "step" and parts > 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches is {parts}, but alignment.negatives is step: the contrastive loss "
            "compares each image with all texts of an optimiser step, of which the accumulated parts do not know "
            "one another's; write alignment.negatives: micro_batch to compare within a part."
        )
