"""Distance to real pictures and agreement with prompts over the guidance scale."""

from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from vilau.callbacks.judging import JudgingCallback
from vilau.callbacks.pictures import show
from vilau.callbacks.sheets import grid
from vilau.errors import DataError
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.judge import judge_scene
from vilau.metrics.passport import SetFingerprint, back_end
from vilau.metrics.scene_scores import scene_scores
from vilau.types import GuidedDrawings, Passport, PromptBatch

REAL, RECONSTRUCTION, RANDOM, EMPTY = "real", "reconstruction", "random", "empty"
"""What drawings are held against: the real images of the prompts, these as the tokenizer keeps them, the real image
of another prompt, and a black picture."""


class GuidanceCurves(JudgingCallback):
    """Measures what a `GuidanceSweep` draws at every guidance scale: ``<name>_g<scale>``, such as ``test/fid_g1.25``.

    * ``test/fid_g...``: Frechet distance of the drawings to the reference set.
    * ``test/draw_prompt_exact_g...``: the share of drawings that hold all that their prompt asks for.
    * ``test/draw_scene_exact_g...``: ... that show exactly the things of the scene their prompt tells, by shape and
      colour; ``test/draw_object_recall_g...``: the share of these things that are there;
      ``test/draw_count_right_g...``: the share of drawings with as many things as were told.

    For scale the same numbers end in ``_real`` (the prompts' own images: FID's floor, the judge's ceiling),
    ``_reconstruction`` (these through the tokenizer: what no drawing can pass), ``_random`` (the real image of
    another prompt; no FID) and ``_empty`` (a black picture). What the prompts do not come with is left out:
    originals, requirements, scenes. A picture has a row per prompt and a column per scale.

    Args:
        features: of the FID: ``world`` (the shipped feature network) or ``inception``.
        weights: the feature network's folder or file, if not the usual one.
        judge: a saved detector's folder; None: the shipped verifier.
        num_rows: prompts shown in the picture.
    """

    def __init__(
        self,
        features: Literal["world", "inception"] = "world",
        weights: str | None = None,
        judge: str | None = None,
        num_rows: int = 8,
    ) -> None:
        super().__init__(judge)
        self.features, self.weights, self.num_rows = features, weights, num_rows
        self.real: FrechetDistance | None = None
        self.distances: dict[str, FrechetDistance] = {}
        self.references = SetFingerprint()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the networks before anything is drawn: a file may be missing."""
        super().setup(trainer, pl_module, stage)
        self.real = self.real or FrechetDistance(self.features, self.weights)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last round."""
        assert self.real is not None
        super().begin(trainer, pl_module)
        for metric in (self.real, self.references):
            metric.to(pl_module.device).reset()
        self.distances = {}
        self.rows: list[list[Tensor]] = []
        self.labels: list[str] = []
        self.headings: list[str] = []

    # ------------------------------------------------------------------ a batch

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Measure a batch's drawings at every scale, and what they are held against."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, GuidedDrawings):
            return False
        if batch.references is None:
            raise DataError(
                "The prompts came without real images, which GuidanceCurves compares drawings with; "
                "give the prompt set references."
            )
        assert self.real is not None
        self.prompts.update(texts=batch.prompts)
        self.references.update(batch.references)
        if len(batch.references):
            self.real.update(batch.references, real=True)
        kinds = pictures(outputs, batch)
        for kind, images in kinds.items():
            if kind != RANDOM:
                self._distance(kind).update(images, real=False)
            self._read(kind, images, batch)
        self._keep_rows(outputs, batch)
        return True

    def _distance(self, kind: str) -> FrechetDistance:
        """The distance of one kind of pictures; all share one feature network and the real images."""
        assert self.real is not None
        if kind not in self.distances:
            self.distances[kind] = self.real.beside()
        return self.distances[kind]

    def _read(self, kind: str, images: Tensor, batch: PromptBatch) -> None:
        asked = [text for text in batch.requirements if text]
        if not asked and not batch.scenes:
            return
        found = self.judge.parse(images)
        values: dict[str, list[float]] = {}
        if asked:
            exact = [judge_scene(s, r).exact for s, r in zip(found, asked, strict=True)]
            values[f"draw_prompt_exact_{kind}"] = [float(e) for e in exact]
        if batch.scenes:
            scores = [scene_scores(s, t) for s, t in zip(found, batch.scenes, strict=True)]
            values[f"draw_scene_exact_{kind}"] = [float(s.exact) for s in scores]
            values[f"draw_object_recall_{kind}"] = [r for s in scores for r in s.recalled]
            values[f"draw_count_right_{kind}"] = [float(s.count_right) for s in scores]
        self.means.update(values)

    def _keep_rows(self, outputs: GuidedDrawings, batch: PromptBatch) -> None:
        missing = max(0, self.num_rows - len(self.rows))
        columns = list(outputs.images)
        self.headings = [f"scale {scale:g}" for scale in outputs.scales]
        if batch.originals is not None:
            columns, self.headings = [batch.originals, *columns], ["real", *self.headings]
        for index, prompt in enumerate(batch.prompts[:missing]):
            self.rows.append([column[index].cpu() for column in columns])
            self.labels.append(prompt)

    # ------------------------------------------------------------------ the end

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report, and show the grid."""
        prompts, number = self.prompts.compute()
        self._report_distances(pl_module, split, prompts, number)
        for name, (mean, count) in self.means.compute().items():
            passport = Passport(
                metric="share of " + ("things found" if "recall" in name else "pictures"),
                features=self.judge.name,
                reference=f"prompts {prompts}",
                num_samples=count,
            )
            shown = name == "draw_scene_exact_g1"
            self.report(pl_module, f"{split}/{name}", mean, passport, prog_bar=shown)
        show(trainer, f"{split}/guidance", grid(self.rows, self.headings, self.labels))

    def _report_distances(
        self, pl_module: pl.LightningModule, split: str, prompts: str, number: int
    ) -> None:
        assert self.real is not None
        digest, num_real = self.references.compute()
        for kind, distance in self.distances.items():
            distance.take_real(self.real)
            passport = Passport(
                metric=back_end("FrechetInceptionDistance"),
                features=distance.features_name,
                reference=f"{num_real} real images {digest}",
                num_samples=number,
                details=f"prompts {prompts}; {distance.preparation}"
                + distance.shortage(num_real, number),
            )
            self.report(pl_module, f"{split}/fid_{kind}", distance.compute(), passport)


def pictures(outputs: GuidedDrawings, batch: PromptBatch) -> dict[str, Tensor]:
    """Return every kind of pictures of a batch, uint8 ``(B, 3, H, W)`` each: those drawn, ``g<scale>``, and others."""
    found = {
        scale_tag(scale): images
        for scale, images in zip(outputs.scales, outputs.images, strict=True)
    }
    originals = batch.originals
    if originals is None:
        return found
    found[REAL] = originals
    if outputs.reconstructions is not None:
        found[RECONSTRUCTION] = outputs.reconstructions
    if len(originals) > 1:
        found[RANDOM] = originals.roll(1, dims=0)
    found[EMPTY] = torch.zeros_like(originals)
    return found


def scale_tag(scale: float) -> str:
    """Return the end of a metric's name: ``g1``, ``g1.25``."""
    return f"g{scale:g}"
