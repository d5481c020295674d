"""What callbacks share that let a judge read drawings: the judge, means by name, and the prompts' fingerprint."""

import lightning.pytorch as pl

from vilau.callbacks.measuring import MeasuringCallback
from vilau.metrics.answers import GroupedMean
from vilau.metrics.judge import SceneJudge
from vilau.metrics.passport import SetFingerprint


class JudgingCallback(MeasuringCallback):
    """Gathers a judge's verdicts; subclasses fill `observe` and `finish`.

    Args:
        judge: a saved detector's folder; None: the shipped verifier.
    """

    def __init__(self, judge: str | None = None) -> None:
        super().__init__()
        self.folder = judge
        self._judge: SceneJudge | None = None
        self.means = GroupedMean()
        self.prompts = SetFingerprint()

    @property
    def judge(self) -> SceneJudge:
        """The judge, from `setup` on."""
        assert self._judge is not None
        return self._judge

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the judge before anything is drawn: a file may be missing."""
        self._judge = self._judge or SceneJudge(self.folder)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last judgements."""
        self.judge.to(pl_module.device)
        self.means.reset()
        self.prompts.to(pl_module.device).reset()
