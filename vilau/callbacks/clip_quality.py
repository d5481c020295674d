"""VBench's twin: what drawn clips show and how well they hold together."""

from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.judging import JudgingCallback
from vilau.metrics.drawn_scores import clip_scores, mean_clip_scores
from vilau.types import ClipOutput, ClipPromptBatch, Passport

BENCHMARK = "world_vbench"


class ClipQuality(JudgingCallback):
    """Judges drawn clips frame by frame.

    ``test/world_vbench/<dimension>`` for each dimension of `vilau.world.clip_judge`, and ``test/world_vbench_quality``,
    ``_semantic`` and ``_total`` by VBench's weights; the same of real clips that were not drawn for the prompt
    (``test/world_vbench_random_clip/...``) and of pictures that stand still (``..._still_clip/...``), which
    score well on everything that only wants no change.

    Args:
        judge: a saved detector's folder; None: the shipped verifier.
    """

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's clips."""
        if not isinstance(batch, ClipPromptBatch) or not isinstance(outputs, ClipOutput):
            return False
        self.prompts.update(texts=batch.prompts)
        for index, (clip, text) in enumerate(zip(outputs.clips, batch.requirements, strict=True)):
            found = clip_scores(self.judge, clip, text)
            self.means.update({f"/{name}": [score] for name, score in found.items()})
            for kind, scores in batch.baselines.items():
                self.means.update({f"_{kind}/{n}": [s] for n, s in scores[index].items()})
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, number = self.prompts.compute()
        by_kind: dict[str, dict[str, float]] = {}
        for key, (mean, count) in self.means.compute().items():
            kind, _, dimension = key.partition("/")
            by_kind.setdefault(kind, {})[dimension] = mean
            self._tell(pl_module, f"{split}/{BENCHMARK}{key}", mean, (kind, digest, count))
        for kind, scores in by_kind.items():
            for name, total in mean_clip_scores(scores).items():
                full = f"{split}/{BENCHMARK}{kind}_{name}"
                self._tell(pl_module, full, total, (kind, digest, number))

    def _tell(
        self, pl_module: pl.LightningModule, name: str, value: float, seen: tuple[str, str, int]
    ) -> None:
        kind, digest, count = seen
        passport = Passport(
            metric="VBench's dimensions on the drawn world (vilau)",
            features="exact scenes" if kind else self.judge.name,
            reference=f"{BENCHMARK} prompts {digest}",
            num_samples=count,
            details=f"baseline: {kind.strip('_').replace('_', ' ')}" if kind else "",
        )
        self.report(pl_module, name, value, passport)
