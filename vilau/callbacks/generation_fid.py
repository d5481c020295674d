"""How far generated pictures as a set lie from real ones."""

from typing import Any, Literal

import lightning.pytorch as pl
import torch

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import DataError
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.inception import InceptionScore
from vilau.metrics.passport import SetFingerprint, back_end
from vilau.types import DrawingOutput, Passport, PromptBatch


class GenerationFID(MeasuringCallback):
    """Logs ``test/fid`` and, for scale, ``test/fid_floor``.

    The floor puts real images in the place of the drawings: as many as there are drawings (at most
    half of the real images), against the other real images.

    Args:
        features: ``world`` (the shipped feature network) or ``inception``.
        weights: the feature network's folder or file, if not the usual one.
        inception_score: also log ``test/inception_score`` and its deviation over ten splits,
            ``test/inception_score_sd``; needs the Inception weights, whatever ``features`` is.
    """

    def __init__(
        self,
        features: Literal["world", "inception"] = "world",
        weights: str | None = None,
        inception_score: bool = False,
    ) -> None:
        super().__init__()
        self.inception_score = inception_score
        self.score: InceptionScore | None = None
        self.features = features
        self.weights = weights
        self.distance: FrechetDistance | None = None
        self.floor: FrechetDistance | None = None
        self.real = SetFingerprint()
        self.prompts = SetFingerprint()
        self.drawn, self.real_seen, self.stand_ins = 0, 0, 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the feature network before anything is drawn: a file may be missing."""
        self.distance = self.distance or FrechetDistance(self.features, self.weights)
        self.floor = self.floor or FrechetDistance(self.features, self.weights)
        if self.inception_score:
            own = self.weights if self.features == "inception" else None
            self.score = self.score or InceptionScore(own)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last images."""
        assert self.distance is not None
        assert self.floor is not None
        for metric in (self.distance, self.floor, self.real, self.prompts, self.score):
            if metric is not None:
                metric.to(pl_module.device).reset()
        self.drawn, self.real_seen, self.stand_ins = 0, 0, 0

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Add a batch's drawings and its real images."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, DrawingOutput):
            return False
        if batch.references is None:
            raise DataError(
                "The prompts came without real images, which GenerationFID compares drawings with; "
                "give the prompt set references or take the callback out of trainer.callbacks."
            )
        assert self.distance is not None
        assert self.floor is not None
        self.distance.update(outputs.images, real=False)
        self.distance.update(batch.references, real=True)
        self.drawn += len(outputs.images)
        self.real_seen += len(batch.references)
        more = max(0, min(self.drawn, self.real_seen // 2) - self.stand_ins)
        self.stand_ins += more
        for images, real in ((batch.references[:more], False), (batch.references[more:], True)):
            if len(images):
                self.floor.update(images, real=real)
        if self.score is not None:
            places = torch.arange(len(outputs.images)) + batch.first_index
            self.score.update(outputs.images, places)
        self.real.update(batch.references)
        self.prompts.update(texts=batch.prompts)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, num_real = self.real.compute()
        prompts, num_drawn = self.prompts.compute()
        assert self.distance is not None
        assert self.floor is not None
        for name, distance, number, details in (
            ("fid", self.distance, num_drawn, f"prompts {prompts}"),
            ("fid_floor", self.floor, min(num_drawn, num_real // 2), "real against other real"),
        ):
            passport = Passport(
                metric=back_end("FrechetInceptionDistance"),
                features=distance.features_name,
                reference=f"{num_real} real images {digest}",
                num_samples=number,
                details=f"{details}; {distance.preparation}",
            )
            self.report(pl_module, f"{split}/{name}", distance.compute(), passport)
        if self.score is not None:
            self._report_score(pl_module, split, prompts, num_drawn)

    def _report_score(
        self, pl_module: pl.LightningModule, split: str, prompts: str, number: int
    ) -> None:
        assert self.score is not None
        values = self.score.compute()
        passport = Passport(
            metric="Inception Score (vilau, torch-fidelity's formula)",
            features=self.score.features_name,
            num_samples=number,
            details=f"prompts {prompts}; {self.score.splits} splits; {self.score.preparation}",
        )
        self.report(pl_module, f"{split}/inception_score", values["mean"], passport)
        self.report(pl_module, f"{split}/inception_score_sd", values["sd"], passport)
