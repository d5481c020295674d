"""Whether a model draws what the prompt says, by the judge of the drawn world."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.metrics.answers import GroupedMean
from vilau.metrics.judge import SceneJudge
from vilau.metrics.passport import SetFingerprint
from vilau.types import DrawingOutput, Passport, PromptBatch


class GenerationJudge(MeasuringCallback):
    """Logs how many drawings hold what their prompt asks for.

    * ``test/draw_prompt_exact``: all that was asked for is there (the headline).
    * ``test/draw_soft``: the share of what was asked for; flatters negation.
    * ``test/draw_color_shape``: the share of the things named by colour and shape that are there.
    * ``test/draw/<skill>``: ``draw_prompt_exact`` over the prompts that ask for a skill.

    Where the prompts come with real images, the same judge sees these too: ``test/draw_ceiling``
    and ``test/draw_ceiling/<skill>`` with the prompt's own image, ``test/draw_chance`` (and
    ``draw_soft_chance``, ``draw_color_shape_chance``, ``draw_chance/<skill>``) with another
    prompt's image.

    Args:
        judge: a saved detector's folder; None: the shipped verifier.
    """

    def __init__(self, judge: str | None = None) -> None:
        super().__init__()
        self.folder = judge
        self.judge: SceneJudge | None = None
        self.means = GroupedMean()
        self.prompts = SetFingerprint()
        self.last: tuple[str, list[str]] | None = None

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the judge the first time."""
        if self.judge is None:
            self.judge = SceneJudge(self.folder)
        self.judge.to(pl_module.device)
        self.means.reset()
        self.prompts.to(pl_module.device).reset()
        self.last = None

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's drawings, and its real images twice."""
        if not isinstance(batch, PromptBatch) or not isinstance(outputs, DrawingOutput):
            return False
        self._judge("draw", "prompt_exact", outputs.images, batch.requirements, batch.skills)
        self.prompts.update(texts=batch.prompts)
        if batch.references is None:
            return True
        self._judge("draw_ceiling", "", batch.references, batch.requirements, batch.skills)
        # Every image is judged by the requirements of the prompt before it.
        asked = list(zip(batch.requirements, batch.skills, strict=True))
        shifted = [self.last or asked[-1], *asked[:-1]]
        self.last = asked[-1]
        if len(asked) == 1 and shifted[0] is asked[0]:
            return True  # the only prompt so far: there is no other to judge its image by
        requirements, skills = map(list, zip(*shifted, strict=True))
        self._judge("draw_chance", "", batch.references, requirements, skills)
        return True

    def _judge(
        self,
        group: str,
        exact_name: str,
        images: Tensor,
        requirements: Sequence[str],
        skills: Sequence[Sequence[str]],
    ) -> None:
        assert self.judge is not None
        suffix = group.removeprefix("draw")
        exact = f"{group}_{exact_name}" if exact_name else group
        for judgement, its_skills in zip(
            self.judge.judge(images, requirements), skills, strict=True
        ):
            right = [float(judgement.exact)]
            values = {exact: right, f"draw_soft{suffix}": [judgement.soft]}
            if judgement.named_things is not None:
                values[f"draw_color_shape{suffix}"] = [judgement.named_things]
            values |= {f"{group}/{skill.replace(' ', '_')}": right for skill in its_skills}
            self.means.update(values)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        assert self.judge is not None
        digest, _ = self.prompts.compute()
        for name, (mean, count) in self.means.compute().items():
            passport = Passport(
                metric="share of prompts satisfied" if "soft" not in name else "soft score",
                features=self.judge.name,
                reference=f"prompts {digest}",
                num_samples=count,
            )
            full = f"{split}/{name}"
            self.report(pl_module, full, mean, passport, prog_bar=name == "draw_prompt_exact")
