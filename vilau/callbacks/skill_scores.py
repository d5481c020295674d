"""GenAI-Bench's twin: which share of the prompts of each skill the drawings satisfy, by the strict rule."""

from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.judging import JudgingCallback
from vilau.callbacks.measuring import drawn_for
from vilau.metrics.drawn_scores import judged_pictures
from vilau.types import Passport

BENCHMARK = "world_genai"


class SkillScores(JudgingCallback):
    """Judges the drawings of GenAI-Bench's twin.

    * ``test/world_genai``: the share of prompts all of whose requirements hold, the headline;
      ``test/world_genai/<skill>`` likewise, and ``/basic`` and ``/advanced``, which the papers print.
    * ``test/world_genai_soft`` (and ``/<skill>``): the share of requirements that hold; flatters negation.
    * ``test/world_genai_random_scene``, ``test/world_genai_empty_image`` and their ``_soft`` (and ``/<skill>``): what
      real pictures that were not drawn for the prompt, and a picture of nothing, score.
    * ``test/world_genai_unjudged``: the share of prompts that the judge cannot decide (parts of things); they are
      in none of the others.

    Args:
        judge: a saved detector's folder; None: the shipped verifier.
    """

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's drawings."""
        if not drawn_for(BENCHMARK, outputs, batch):
            return False
        self.prompts.update(texts=batch.prompts)
        judged = judged_pictures(self.judge, outputs.images, batch.requirements)
        for index, found in enumerate(judged):
            self.means.update({"_unjudged": [float(found is None)]})
            if found is None:
                continue
            self._add("", (float(found.exact), found.soft), batch.skills[index])
            for kind, scores in batch.baselines.items():
                self._add(f"_{kind}", scores[index], batch.skills[index])
        return True

    def _add(self, kind: str, scores: tuple[float, float], skills: list[str]) -> None:
        for name, score in zip((kind, f"{kind}_soft"), scores, strict=True):
            tails = ("", *(f"/{skill.replace(' ', '_')}" for skill in skills))
            self.means.update({f"{name}{tail}": [score] for tail in tails})

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, _ = self.prompts.compute()
        for name, (mean, count) in self.means.compute().items():
            kind = name.split("/")[0].removesuffix("_soft").strip("_").replace("_", " ")
            soft = name.split("/")[0].endswith("_soft")
            passport = Passport(
                metric="share of requirements satisfied" if soft else "share of prompts satisfied",
                features="exact scenes"
                if kind in ("random scene", "empty image")
                else self.judge.name,
                reference=f"{BENCHMARK} prompts {digest}",
                num_samples=count,
                details=f"baseline: {kind}" if kind and kind != "unjudged" else "",
            )
            self.report(pl_module, f"{split}/{BENCHMARK}{name}", mean, passport, prog_bar=not name)
