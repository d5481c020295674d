"""GenAI-Bench's twin: which share of the prompts of each skill the drawings satisfy, all requirements together."""

from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.judging import JudgingCallback
from vilau.callbacks.measuring import drawn_for
from vilau.metrics.judge import Judgement
from vilau.types import Passport

BENCHMARK = "world_genai"
BASELINES = ("random scene", "empty image")


class SkillScores(JudgingCallback):
    """Judges the drawings of GenAI-Bench's twin.

    * ``test/world_genai``: the share of prompts all of whose requirements hold, the headline;
      ``test/world_genai/<skill>`` likewise, and ``/basic`` and ``/advanced``, which the papers print.
    * ``test/world_genai_soft`` (and ``/<skill>``): the share of requirements that hold; flatters negation.
    * ``test/world_genai_strict`` and ``..._strict_soft`` (and ``/<skill>``): the same by the strict judge, who takes
      nothing that the renderer could not have drawn; ``test/world_genai_agreement``: the share of prompts of which
      both judges say the same.
    * ``test/world_genai_random_scene``, ``test/world_genai_empty_image`` and their ``_soft`` (and ``/<skill>``): what
      real pictures that were not drawn for the prompt, and a picture of nothing, score.
    * ``test/world_genai_unjudged``: the share of prompts that no judge can decide (parts of things); they are
      in none of the others.

    Args:
        judge: a saved detector's folder, the verifier; None: the shipped one.
    """

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's drawings."""
        if not drawn_for(BENCHMARK, outputs, batch):
            return False
        self.prompts.update(texts=batch.prompts)
        for index, found in enumerate(self.judged(outputs.images, batch.requirements)):
            self.means.update({"_unjudged": [float(found is None)]})
            if found is None:
                continue
            skills = batch.skills[index]
            self._add("", _scores(found.lenient), skills)
            self._add("_strict", _scores(found.strict), skills)
            self.means.update({"_agreement": [float(found.agree)]})
            for kind, scores in batch.baselines.items():
                self._add(f"_{kind}", scores[index], skills)
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
            passport = Passport(
                metric=_measure(name.split("/")[0]),
                features="exact scenes" if kind in BASELINES else self.judges_of(name),
                reference=f"{BENCHMARK} prompts {digest}",
                num_samples=count,
                details=f"baseline: {kind}" if kind in BASELINES else "",
            )
            self.report(pl_module, f"{split}/{BENCHMARK}{name}", mean, passport, prog_bar=not name)


def _scores(judgement: Judgement) -> tuple[float, float]:
    return float(judgement.exact), judgement.soft


def _measure(name: str) -> str:
    if name == "_agreement":
        return "share of prompts of which both judges say the same"
    return f"share of {'requirements' if name.endswith('_soft') else 'prompts'} satisfied"
