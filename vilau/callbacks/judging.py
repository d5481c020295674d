"""What callbacks share that let judges read drawings: the judges, means by name, and the prompts' fingerprint."""

from collections.abc import Sequence

import lightning.pytorch as pl
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.metrics.answers import GroupedMean
from vilau.metrics.judge import SceneJudge
from vilau.metrics.passport import SetFingerprint
from vilau.metrics.strict_judge import StrictJudge, Verdicts, verdicts


class JudgingCallback(MeasuringCallback):
    """Gathers the verdicts of two judges, the verifier and the strict one; subclasses fill `observe` and `finish`.

    Args:
        judge: a saved detector's folder, the verifier; None: the shipped one.
    """

    def __init__(self, judge: str | None = None) -> None:
        super().__init__()
        self.folder = judge
        self._judge: SceneJudge | None = None
        self.strict = StrictJudge()
        self.means = GroupedMean()
        self.prompts = SetFingerprint()

    @property
    def judge(self) -> SceneJudge:
        """The verifier, from `setup` on."""
        assert self._judge is not None
        return self._judge

    def judged(self, images: Tensor, requirements: Sequence[str]) -> list[Verdicts | None]:
        """Let both judge uint8 images ``(B, 3, H, W)`` by their prompts' requirements; see `verdicts`."""
        return verdicts(self.judge, self.strict, images, requirements)

    def judges_of(self, name: str) -> str:
        """Whose verdicts a mean of this name gathers, for its passport: ``..._strict...``, ``..._agreement...``."""
        if "_agreement" in name:
            return f"{self.judge.name}; {self.strict.name}"
        return self.strict.name if "_strict" in name else self.judge.name

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the judge before anything is drawn: a file may be missing."""
        self._judge = self._judge or SceneJudge(self.folder)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last judgements."""
        self.judge.to(pl_module.device)
        self.means.reset()
        self.prompts.to(pl_module.device).reset()
