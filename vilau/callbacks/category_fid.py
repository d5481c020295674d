"""FID of drawings by category, with both floors: what real pictures and reconstructions would reach."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback, drawn_for
from vilau.errors import DataError
from vilau.metrics.category_frechet import CategoryFrechet
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.passport import SetFingerprint
from vilau.types import Passport, PromptBatch, Rebuilds

BENCHMARK = "world_mjhq"
DRAWN, REAL, OTHER, REBUILT = "drawn", "real", "other real", "rebuilt"
AGAINST = {"": DRAWN, "_floor": OTHER, "_rebuilt": REBUILT}
"""What each number compares with the real pictures."""
DETAILS = {
    "": "drawings against real pictures",
    "_floor": "floor: other real pictures against real pictures",
    "_rebuilt": "floor: reconstructions of the real pictures against them",
}


def real_pictures(
    callback: pl.Callback, pl_module: pl.LightningModule, batch: PromptBatch
) -> tuple[Tensor, Tensor, Tensor]:
    """Return real pictures of a batch's prompts, others of their categories, and the first rebuilt.

    Raises:
        DataError: the batch came without them, or the module has no tokenizer to rebuild with.
    """
    if batch.references is None or len(batch.references) != 2 * len(batch.prompts):
        raise DataError(
            f"A batch of {BENCHMARK} came without two real pictures for each prompt; use TwinBenchmarks, "
            "which gives them."
        )
    if not isinstance(pl_module, Rebuilds):
        raise DataError(
            f"{type(pl_module).__name__} has no `rebuild`, which {type(callback).__name__} asks for; take the "
            "callback out of trainer.callbacks."
        )
    real, other = batch.references.chunk(2)
    return real, other, pl_module.rebuild(real)


class CategoryFID(MeasuringCallback):
    """Compares the drawings of MJHQ's twin with real pictures of the same prompts.

    * ``test/world_mjhq_fid``: over all; ``test/world_mjhq_fid/<category>``: one of each category.
    * ``test/world_mjhq_fid_floor`` and ``.../<category>``: as many other real pictures in the drawings' place. A
      category's number of pictures is small, and its distance only means something beside this.
    * ``test/world_mjhq_fid_rebuilt``: what the tokenizer keeps of the real pictures, in the drawings' place. No
      drawing can be expected to come closer.

    Args:
        weights: a detector's folder; None: the shipped feature network.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.features: FrechetDistance | None = None
        self.distances: CategoryFrechet | None = None
        self.categories: tuple[str, ...] = ()
        self.prompts, self.real = SetFingerprint(), SetFingerprint()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the feature network before anything is drawn: a file may be missing."""
        self.features = self.features or FrechetDistance("world", self.weights)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pictures."""
        self.distances = None
        for fingerprint in (self.prompts, self.real):
            fingerprint.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Add a batch's drawings, real pictures, and reconstructions of these."""
        if not drawn_for(BENCHMARK, outputs, batch):
            return False
        real, other, rebuilt = real_pictures(self, pl_module, batch)
        if self.distances is None:
            sets = (*AGAINST.values(), REAL)
            self.distances = CategoryFrechet(sets, batch.categories, self.features)
            self.distances.to(pl_module.device)
        categories = [skills[0] for skills in batch.skills]
        for name, images in (
            (DRAWN, outputs.images), (REAL, real), (OTHER, other), (REBUILT, rebuilt),
        ):  # fmt: skip
            self.distances.update(images, categories, name)
        self.prompts.update(texts=batch.prompts)
        self.real.update(real)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        assert self.distances is not None
        digest, number = self.real.compute()
        prompts, _ = self.prompts.compute()
        counts = self.distances.compute()
        with self.distances.sync_context():
            for category in (None, *self.distances.categories):
                count = number if category is None else int(counts[REAL, category])
                for kind, name in AGAINST.items():
                    value = self.distances.distance(name, REAL, category)
                    if value is None:
                        continue
                    passport = Passport(
                        metric="Frechet distance (vilau, torchmetrics' formula)",
                        features=self.distances.features_name,
                        reference=f"real pictures {digest}",
                        num_samples=count,
                        details=f"{DETAILS[kind]}; prompts {prompts}; {self.distances.preparation}"
                        + self.distances.shortage(name, REAL, category),
                    )
                    tail = "" if category is None else f"/{category.replace(' ', '_')}"
                    self.report(
                        pl_module, f"{split}/{BENCHMARK}_fid{kind}{tail}", value.float(), passport
                    )
