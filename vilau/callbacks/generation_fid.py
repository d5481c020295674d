"""How far generated pictures as a set lie from real ones."""

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import DataError
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.image_folder import image_files, read_images
from vilau.metrics.inception import InceptionScore
from vilau.metrics.passport import SetFingerprint, back_end
from vilau.types import DrawingOutput, Passport, PromptBatch


class GenerationFID(MeasuringCallback):
    """Logs ``test/fid`` and, for scale, ``test/fid_floor``.

    The floor puts real images in the place of the drawings: as many as there are drawings (at most
    half of the real images), against the other real images. The real images come with the prompts, or from a
    folder; of a folder there is no floor.

    Args:
        features: ``world`` (the shipped feature network) or ``inception``.
        weights: the feature network's folder or file, if not the usual one.
        inception_score: also log ``test/inception_score`` and its deviation over ten splits,
            ``test/inception_score_sd``; needs the Inception weights, whatever ``features`` is.
        reference: a folder of real images, with all below it, in the place of those of the prompts.
    """

    def __init__(
        self,
        features: Literal["world", "inception"] = "world",
        weights: str | None = None,
        inception_score: bool = False,
        reference: str | None = None,
    ) -> None:
        super().__init__()
        self.reference = reference
        self.files: list[Path] = []
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
        if self.reference is not None:
            self.files = image_files(self.reference)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last images."""
        assert self.distance is not None
        assert self.floor is not None
        for metric in (self.distance, self.floor, self.real, self.prompts, self.score):
            if metric is not None:
                metric.to(pl_module.device).reset()
        self.drawn, self.real_seen, self.stand_ins = 0, 0, 0
        # Before anything is drawn: a file may be broken.
        for images in read_images(self.files[trainer.global_rank :: trainer.world_size]):
            self.distance.update(images.to(pl_module.device), real=True)
            self.real.update(images)

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Add a batch's drawings and its real images."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, DrawingOutput):
            return False
        assert self.distance is not None
        self.distance.update(outputs.images, real=False)
        self.drawn += len(outputs.images)
        if self.reference is None:
            self._compare_with(batch.references)
        if self.score is not None:
            places = torch.arange(len(outputs.images)) + batch.first_index
            self.score.update(outputs.images, places)
        self.prompts.update(texts=batch.prompts)
        return True

    def _compare_with(self, references: Tensor | None) -> None:
        """Add real images of the prompts, some of them in the place of drawings for the floor."""
        if references is None:
            raise DataError(
                "The prompts came without real images, which GenerationFID compares drawings with; "
                "give the prompt set references, write a folder of real images as GenerationFID.reference, or "
                "take the callback out of trainer.callbacks."
            )
        assert self.distance is not None
        assert self.floor is not None
        self.distance.update(references, real=True)
        self.real.update(references)
        self.real_seen += len(references)
        more = max(0, min(self.drawn, self.real_seen // 2) - self.stand_ins)
        self.stand_ins += more
        for images, real in ((references[:more], False), (references[more:], True)):
            if len(images):
                self.floor.update(images, real=real)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, num_real = self.real.compute()
        prompts, num_drawn = self.prompts.compute()
        assert self.distance is not None
        assert self.floor is not None
        stood_in = min(num_drawn, num_real // 2)
        measured = [("fid", self.distance, num_drawn, num_real, f"prompts {prompts}")]
        if self.reference is None:
            rest = num_real - stood_in
            measured += [("fid_floor", self.floor, stood_in, rest, "real against other real")]
        for name, distance, number, others, details in measured:
            passport = Passport(
                metric=back_end("FrechetInceptionDistance"),
                features=distance.features_name,
                reference=f"{num_real} real images {digest}",
                num_samples=number,
                details=f"{details}; {distance.preparation}{distance.shortage(number, others)}",
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
