"""A run's settings for TensorBoard's hyper-parameter tab, tied to its final metrics."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams


def log_hyperparameters(
    logger: Logger | None, config: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Write the flattened config and the names of the final metrics as one session.

    The values of the metrics are the last points of their curves; Lightning's own call would add a
    false point at step 0 instead.
    """
    if not isinstance(logger, TensorBoardLogger):
        return
    settings: dict[str, Any] = {}
    for section in ("seed_everything", "model", "data", "optimizer", "lr_scheduler"):
        flatten(config.get(section), section, settings)
    # TensorBoard's tables take numbers, texts and truth values.
    plain = {k: v if isinstance(v, (int, float, bool)) else str(v) for k, v in settings.items()}
    writer = logger.experiment._get_file_writer()
    for summary in hparams(plain, metrics):
        writer.add_summary(summary)
    logger.experiment.flush()


def flatten(value: Any, key: str, out: dict[str, Any]) -> None:
    """Write the leaves of ``value`` into ``out`` under dotted keys as a user types them."""
    if not isinstance(value, dict):
        if value is not None:
            out[key] = value
        return
    for name, item in value.items():
        inner = key if name in ("init_args", "dict_kwargs") else f"{key}.{name}"
        flatten(item, inner, out)
