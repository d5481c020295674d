"""Says in words when a training run is going wrong, and what usually helps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from vilau.callbacks.health_rules import (
    HELP,
    NAMES,
    Alarms,
    MeanWindow,
    SpikeWindow,
    check_settings,
    codebook_findings,
    depth_findings,
    non_finite_words,
    per_depth,
)
from vilau.callbacks.health_signals import (
    gradient_norm,
    loss_scaler,
    seed_of,
    spoilt_parameters,
    tell,
)
from vilau.callbacks.replay import save_step
from vilau.types import Reconstructs, TowerOutput


class TrainingDivergedError(FloatingPointError):
    """The loss or a gradient is not a finite number, and the run was told to stop on it."""


class Health(pl.Callback):
    """Watches a training run and says once per cause, until it has recovered, what is wrong.

    * a loss or gradient that is NaN or infinite, before it reaches the weights. The batches of that
      step are saved as ``<default_root_dir>/health/step<step>-rank<rank>.pt`` (see `load_step` in
      `vilau.callbacks.replay`), and the run stops unless ``stop_on_nan`` is false. Gradients that
      float16's loss scaling skips are no alarm.
    * a loss spike: more than ``spike`` standard deviations above the median of the last ``window``, and
      twice as far as the largest tenth of these.
    * codebook collapse and dead depths, from what the callback ``CodebookUsage`` measured.
    * a discriminator that wins, by its accuracy or else its loss over a window.
    * a logit scale that has grown to its largest value.

    It speaks above the progress bar, in TensorBoard's texts, and sums up at the end of the fit. It
    draws no random numbers and changes no weight.

    Args:
        stop_on_nan: end the run with `TrainingDivergedError`; false: say it and go on.
        max_saved: most steps to save per rank.
        window: steps that spikes and the discriminator are judged over.
        every_n_steps: how often discriminator and logit scale are looked at.
        spike: standard deviations (by the median deviation) from which a loss is a spike.
        smallest_usage: share of the codes in use below which a depth's codebook has collapsed.
        smallest_perplexity: the same for perplexity; both shares are of K, or of the codes that the
            validation set has room for where these are fewer.
        smallest_fall: share of the residual energy that a depth must take away.
        largest_accuracy: the discriminator's mean accuracy above which it wins.
        smallest_discriminator_loss: its mean loss below which it wins, where no accuracy is logged.
        largest_logit_scale: the factor of the cosines that is too much (SigLIP's own ends near 117;
            write 100 for a scale that is held there).
        names: other names of logged metrics, by the keys of ``NAMES``.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(  # noqa: PLR0913 - one threshold per cause
        self,
        stop_on_nan: bool = True,
        max_saved: int = 3,
        window: int = 100,
        every_n_steps: int = 10,
        spike: float = 10.0,
        smallest_usage: float = 0.1,
        smallest_perplexity: float = 0.02,
        smallest_fall: float = 0.01,
        largest_accuracy: float = 0.95,
        smallest_discriminator_loss: float = 0.05,
        largest_logit_scale: float = 200.0,
        names: dict[str, str] | None = None,
    ) -> None:
        check_settings(
            least={
                "max_saved": (max_saved, 0),
                "window": (window, 8),
                "every_n_steps": (every_n_steps, 1),
                "spike": (spike, 1),
            },
            shares={
                "smallest_usage": smallest_usage,
                "smallest_perplexity": smallest_perplexity,
                "smallest_fall": smallest_fall,
                "largest_accuracy": largest_accuracy,
            },
            names=names or {},
        )
        self.stop_on_nan, self.max_saved, self.every_n_steps = stop_on_nan, max_saved, every_n_steps
        self.smallest_usage, self.smallest_perplexity = smallest_usage, smallest_perplexity
        self.smallest_fall, self.largest_accuracy = smallest_fall, largest_accuracy
        self.smallest_discriminator_loss = smallest_discriminator_loss
        self.largest_logit_scale = largest_logit_scale
        self.names = NAMES | (names or {})
        self.alarms = Alarms()
        self.spikes = SpikeWindow(length=window, deviations=spike)
        self.discriminator = MeanWindow(max(1, window // every_n_steps))
        self.watched: set[str] = set()
        self._batches: list[tuple[int, Any]] = []
        self._losses: list[Tensor] = []
        self._seen_losses: list[float] = []
        self._saved = 0
        self._num_codes = 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain rows only: checkpoints are read with ``weights_only=True``."""
        return {"alarms": self.alarms.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the alarms of the run that is resumed."""
        self.alarms.load_state_dict(state_dict["alarms"])

    # ------------------------------------------------------------------ every step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold on to the batches of a step until it is taken."""
        self._batches.append((batch_idx, batch))

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Note the loss; it stays on its device."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at losses and gradients before they reach the weights.

        Raises:
            TrainingDivergedError: they are not finite, on whichever rank, and ``stop_on_nan`` is set.
        """
        losses, self._losses = self._losses, []
        if loss_scaler(trainer) is not None:
            return  # scaled losses may overflow, and the scaler passes over such a step by itself
        self.watched |= {"loss", "gradients"}
        numbers = [loss.float().reshape(()) for loss in losses]
        *values, norm = torch.stack([*numbers, gradient_norm(optimizer).to(pl_module.device)]).tolist()  # fmt: skip
        self._seen_losses += values
        self._judge_finite(trainer, pl_module, optimizer, values, norm)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Judge the loss of the step, and now and then what the module logs."""
        scaled = loss_scaler(trainer) is not None
        if not scaled and self._losses:
            return  # the step is not taken yet: more batches are gathered for it
        if scaled:
            self.watched.add("loss")
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            self._seen_losses = [float(loss)] if isinstance(loss, Tensor) else []
            self._judge_finite(trainer, pl_module, None, self._seen_losses, 0.0)
        step, losses = trainer.global_step, self._seen_losses
        self._seen_losses, self._batches, self._losses = [], [], []
        due = step % self.every_n_steps == 0
        name = self.names["loss"]
        several = len(trainer.optimizers) > 1
        metrics: Mapping[str, Any] = trainer.callback_metrics if due or several else {}
        # With several optimisers each has a loss of its own; the one that is logged sums them up.
        if several:
            losses = [float(metrics[name])] if name in metrics else []
        if losses and all(map(math.isfinite, losses)):
            self._judge_spike(trainer, sum(losses) / len(losses))
        if due:
            self._judge_discriminator(trainer, metrics)
            self._judge_logit_scale(trainer, metrics)

    def _judge_finite(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer | None,
        losses: Sequence[float],
        norm: float,
    ) -> None:
        mine = not all(map(math.isfinite, [*losses, norm]))
        wrong = mine
        if trainer.world_size > 1:
            wrong = trainer.strategy.reduce_boolean_decision(mine, all=False)
        step = trainer.global_step
        if not wrong:
            self._set(trainer, "non-finite", "", wrong=False)
            return
        details = {
            "step": step,
            "rank": trainer.global_rank,
            "losses": list(losses),
            "gradient_norm": norm,
            "parameters": spoilt_parameters(pl_module, optimizer),
            "seed": seed_of(trainer),
            "batch_indices": [index for index, _ in self._batches],
            "batches": [batch for _, batch in self._batches],
        }
        words = f"{non_finite_words(details, mine=mine)}; {self._save(trainer, details)}"
        self._set(trainer, "non-finite", "", wrong=True, words=words)
        if self.stop_on_nan:
            raise TrainingDivergedError(
                f"Step {step}: {words}; the weights are those before this step. What usually helps: "
                f"{HELP['non-finite']} Health.stop_on_nan: false goes on instead."
            )

    def _save(self, trainer: pl.Trainer, details: dict[str, Any]) -> str:
        if self._saved >= self.max_saved:
            return f"its batch is not saved (Health.max_saved is {self.max_saved})"
        name = f"step{details['step']:08d}-rank{details['rank']}.pt"
        file = Path(trainer.default_root_dir) / "health" / name
        save_step(file, details)
        self._saved += 1
        return f"its batch is saved as {file}"

    def _judge_spike(self, trainer: pl.Trainer, loss: float) -> None:
        wrong = self.spikes.spikes(loss)
        # Without a known normal there is nothing to be above of.
        normal = self.spikes.median if wrong else 0.0
        words = f"the loss is {loss:.4g}, usually {normal:.4g} (the alarm stands at {self.spikes.limit:.4g})"
        self._set(trainer, "loss spike", "", wrong=wrong, words=words)

    # ------------------------------------------------------------------ now and then

    def _judge_discriminator(self, trainer: pl.Trainer, metrics: Mapping[str, Any]) -> None:
        for name, limit in (
            ("discriminator_accuracy", self.largest_accuracy),
            ("discriminator_loss", self.smallest_discriminator_loss),
        ):
            value = metrics.get(self.names[name])
            if value is None:
                continue
            self.watched.add("discriminator")
            mean = self.discriminator.mean(float(value))
            if mean is not None:
                wrong = mean > limit if name == "discriminator_accuracy" else mean < limit
                what = name.replace("discriminator_", "its mean ")
                words = f"{what} is {mean:.4g} (the alarm stands at {limit:g})"
                self._set(trainer, "discriminator winning", "", wrong=wrong, words=words)
            return  # the loss is asked only where no accuracy is logged

    def _judge_logit_scale(self, trainer: pl.Trainer, metrics: Mapping[str, Any]) -> None:
        value = metrics.get(self.names["logit_scale"])
        if value is None:
            return
        self.watched.add("logit scale")
        # A scale that is held at its largest value may lie below it by rounding.
        wrong = float(value) >= self.largest_logit_scale * (1 - 1e-3)
        words = f"it is {float(value):.4g} (the alarm stands at {self.largest_logit_scale:g})"
        self._set(trainer, "logit scale", "", wrong=wrong, words=words)

    # ------------------------------------------------------------------ after a validation

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the codes of the set anew."""
        self._num_codes = 0

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the positions that codes stand on: no set uses more codes than it has room for."""
        if isinstance(outputs, TowerOutput):
            self._num_codes += outputs.codes[..., 0].numel() * trainer.world_size

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the codebook by what the callback ``CodebookUsage`` logged."""
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        usage = per_depth(metrics, self.names["usage"])
        perplexity = per_depth(metrics, self.names["perplexity"])
        if isinstance(pl_module, Reconstructs) and self._num_codes and (usage or perplexity):
            self.watched.add("codebook")
            found = codebook_findings(
                usage,
                perplexity,
                codebook_size=pl_module.codebook_size,
                num_codes=self._num_codes,
                smallest_usage=self.smallest_usage,
                smallest_perplexity=self.smallest_perplexity,
            )
            for depth, wrong, words in found:
                self._set(trainer, "codebook collapse", f"depth {depth}", wrong=wrong, words=words)
        energies = per_depth(metrics, self.names["residual_energy"])
        self.watched |= {"residual energy"} if energies else set()
        for depth, wrong, words in depth_findings(energies, smallest_fall=self.smallest_fall):
            self._set(trainer, "dead depth", f"depth {depth}", wrong=wrong, words=words)

    # ------------------------------------------------------------------ speaking

    def _set(
        self, trainer: pl.Trainer, cause: str, place: str, *, wrong: bool, words: str = ""
    ) -> None:
        step = trainer.global_step
        if not self.alarms.note(cause, place, wrong=wrong, step=step):
            return
        name = f"{cause}, {place}" if place else cause
        if wrong:
            self._say(trainer, cause, f"{name}: {words}. What usually helps: {HELP[cause]}")
        else:
            self._say(trainer, cause, f"{name}: over.")

    def _say(self, trainer: pl.Trainer, cause: str, sentence: str) -> None:
        if not trainer.is_global_zero:
            return
        tell(trainer, f"health, step {trainer.global_step}: {sentence}")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                tag = f"health/{cause.replace(' ', '_')}"
                logger.experiment.add_text(tag, sentence, trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up: what went wrong and when, what was watched, and what could not be."""
        if trainer.is_global_zero:
            tell(trainer, "\n".join(self.alarms.summary(trainer.global_step, self.watched)))
