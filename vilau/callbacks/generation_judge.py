"""Whether a model draws what the prompt says, by the judge of the drawn world."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.judging import JudgingCallback
from vilau.metrics.judge import Judgement, judge_scene
from vilau.types import DrawingOutput, Passport, PromptBatch

CHANCE_IMAGES = 3
"""Real images that each prompt is judged by for the chance line."""


class GenerationJudge(JudgingCallback):
    """Logs how many drawings hold what their prompt asks for.

    * ``test/draw_prompt_exact``: all that was asked for is there (the headline).
    * ``test/draw_soft``: the share of what was asked for; flatters negation.
    * ``test/draw_color_shape``: the share of the things named by colour and shape that are there.
    * ``test/draw_strict``: ``draw_prompt_exact`` by the strict judge, who takes nothing that the renderer could not
      have drawn; ``test/draw_agreement``: the share of drawings of which both judges say the same.
    * ``test/draw/<skill>``: ``draw_prompt_exact`` over the prompts that ask for a skill.

    Where the prompts come with real images, each prompt is also judged by a few of these that were
    not drawn for it: ``test/draw_chance``, ``test/draw_soft_chance``,
    ``test/draw_color_shape_chance`` and ``test/draw_chance/<skill>``.

    Args:
        judge: a saved detector's folder, the verifier; None: the shipped one.
    """

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's drawings, and some real images by the same prompts."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, DrawingOutput):
            return False
        self.prompts.update(texts=batch.prompts)
        asked = batch.requirements
        lenient = self.judge.judge(outputs.images, asked)
        self._add("_prompt_exact", lenient, batch)
        strict = map(judge_scene, self.strict.parse(outputs.images), asked)
        found = [(one.exact, other.exact) for one, other in zip(lenient, strict, strict=True)]
        self.means.update({"draw_strict": [float(exact) for _, exact in found]})
        self.means.update({"draw_agreement": [float(one == other) for one, other in found]})
        if batch.references is not None:
            real = self.judge.parse(batch.references[: len(asked) + CHANCE_IMAGES])
            # Never its own: a set may hold, at place i, a real image of prompt i.
            for shift in range(1, min(CHANCE_IMAGES + 1, len(real))):
                others = (real[(index + shift) % len(real)] for index in range(len(asked)))
                self._add("_chance", list(map(judge_scene, others, asked)), batch)
        return True

    def _add(self, kind: str, judgements: Sequence[Judgement], batch: PromptBatch) -> None:
        chance = "_chance" if kind == "_chance" else ""
        for judgement, skills in zip(judgements, batch.skills, strict=True):
            right = [float(judgement.exact)]
            values = {f"draw{kind}": right, f"draw_soft{chance}": [judgement.soft]}
            if judgement.named_things is not None:
                values[f"draw_color_shape{chance}"] = [judgement.named_things]
            values |= {f"draw{chance}/{skill.replace(' ', '_')}": right for skill in skills}
            self.means.update(values)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, _ = self.prompts.compute()
        for name, (mean, count) in self.means.compute().items():
            passport = Passport(
                metric=_measure(name),
                features=self.judges_of(name),
                reference=f"prompts {digest}",
                num_samples=count,
                details=f"{CHANCE_IMAGES} real images per prompt" if "chance" in name else "",
            )
            full = f"{split}/{name}"
            self.report(pl_module, full, mean, passport, prog_bar=name == "draw_prompt_exact")


def _measure(name: str) -> str:
    if "soft" in name:
        return "soft score"
    if "agreement" in name:
        return "share of drawings of which both judges say the same"
    return f"share of {'named things shown' if 'color_shape' in name else 'prompts satisfied'}"
