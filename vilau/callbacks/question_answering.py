"""How well a model answers questions about images, beside chance, blind guesses and the ceiling."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TextIO

import lightning.pytorch as pl
import torch
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.callbacks.pictures import show
from vilau.callbacks.sheets import captioned
from vilau.metrics.answers import (
    POPE_SETTINGS,
    AnswerMetric,
    AnswerStyle,
    GroupedMean,
    PopeScores,
    answer_metric,
    best_vqa_accuracy,
    check_style,
    exact_match,
    mean_scores,
    names_on_all_ranks,
    unjudged,
    vqa_accuracy,
    without_judge,
)
from vilau.metrics.passport import SetFingerprint
from vilau.metrics.predictions import HIDDEN, PREDICTION
from vilau.types import WITHOUT_IMAGES, AnswerOutput, Passport, QuestionBatch


class QuestionAnswering(MeasuringCallback):
    """Scores the answers to every benchmark of a test.

    A benchmark ``vqa`` (likewise ``vqa_comp`` or any other that is not ``pope_...``) gives
    ``test/vqa_accuracy`` (soft accuracy), ``test/vqa_exact`` (plain equality) and
    ``test/vqa/<family>``; for scale ``test/vqa_chance`` (guessing among the answers of a kind),
    ``test/vqa_blind`` (the most frequent answer, without looking) and ``test/vqa_ceiling`` (the
    best that the annotators' disagreement leaves possible), each also per family.

    The benchmarks ``pope_random``, ``pope_popular`` and ``pope_adversarial`` give
    ``test/pope_random_accuracy``, ``_precision``, ``_recall``, ``_f1`` and ``_yes_ratio`` and so
    on, all together ``test/pope_accuracy``, ``test/pope_f1`` and the rest, and, if all three were
    asked, their means ``test/pope_mean_f1`` and so on.

    A published benchmark or its twin, whose questions come with ``rows``, is scored by its own rules
    (`vilau.metrics.answers.answer_metric`): ``test/mme_perception``, ``test/world_seedbench_all``, and
    so on; what else answers its questions by the same rules: ``test/world_mme_perception_chance``,
    ``_blind`` and ``_ceiling``, each the mean of its guessers' scores. Of MME a part of the categories has no
    ``perception``; the twin's is over those its level has, and its passport says how many. No judge model is
    asked: where one belongs (MM-Vet, video questions) strings are compared, and the number is called so:
    ``test/mmvet_string_match_score``.

    Where the model was shown no images (``model.show_images: false``), the names are the same; the passports of its
    scores and the captions of the pictures say so.

    Every answer goes to ``<default_root_dir>/predictions/<benchmark>.jsonl`` (with several ranks
    one file for each), a few with their images to TensorBoard and to ``images``. A row of a
    published benchmark holds its columns and the answer under ``prediction``, so that
    `vilau.metrics.predictions.score_predictions` can score the file again.

    Args:
        pope_style: whose parser reads yes and no, ``lmms`` (lmms-eval) or ``llava``.
        num_samples: how many questions of each benchmark to show with their images.
        style: whose scripts score the published benchmarks.

    Raises:
        ConfigError: a style is unknown.
    """

    def __init__(
        self,
        pope_style: AnswerStyle = "lmms",
        num_samples: int = 24,
        style: AnswerStyle = "lmms",
    ) -> None:
        super().__init__()
        self.pope_style = check_style(pope_style, "POPE")
        self.style = check_style(style, "a published benchmark")
        self.num_samples = num_samples
        self.means = GroupedMean()
        self.pope: dict[str, PopeScores] = {}
        self.published: dict[str, AnswerMetric] = {}
        self.questions: dict[str, SetFingerprint] = {}
        self.images_shown = True
        self.samples: dict[str, list[tuple[Tensor, str]]] = defaultdict(list)
        self.files: dict[str, TextIO] = {}

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last answers."""
        self.means.reset()
        self.pope = {}
        self.published = {}
        self.questions = {}
        self.images_shown = True
        self.samples.clear()
        self._close(finished=False)

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Score a batch's answers."""
        if not isinstance(batch, QuestionBatch) or not isinstance(outputs, AnswerOutput):
            return False
        benchmark = batch.benchmark
        self.images_shown &= outputs.images_shown
        if benchmark not in self.questions:
            self.questions[benchmark] = SetFingerprint().to(pl_module.device)
        keys = [
            "\0".join([question, *accepted])
            for question, accepted in zip(batch.questions, batch.answers, strict=True)
        ]
        self.questions[benchmark].update(*_pictured(batch, keys))
        if benchmark.startswith("pope_"):
            truths = [accepted[0] for accepted in batch.answers]
            for name in (benchmark, "pope"):
                if name not in self.pope:
                    self.pope[name] = PopeScores(self.pope_style).to(pl_module.device)
                self.pope[name].update(outputs.answers, truths)
        elif batch.rows:
            self._score_rows(batch, outputs.answers, pl_module)
        else:
            self._score(batch, outputs.answers)
        self._keep(trainer, batch, outputs.answers)
        return True

    def _score_rows(
        self, batch: QuestionBatch, answers: list[str], pl_module: pl.LightningModule
    ) -> None:
        said = {batch.benchmark: answers}
        for kind, guesses in batch.baselines.items():
            for number, guessed in enumerate(zip(*guesses, strict=True)):
                said[f"{batch.benchmark}\t{kind}\t{number}"] = list(guessed)
        for name, words in said.items():
            if name not in self.published:
                metric = answer_metric(unjudged(batch.benchmark), self.style)
                self.published[name] = metric.to(pl_module.device)
            self.published[name].update_rows(words, batch.rows)

    def _score(self, batch: QuestionBatch, answers: list[str]) -> None:
        name = batch.benchmark
        for index, (answer, accepted) in enumerate(zip(answers, batch.answers, strict=True)):
            scores = {
                "accuracy": vqa_accuracy(answer, accepted),
                "ceiling": best_vqa_accuracy(accepted),
            }
            if batch.chance:
                scores["chance"] = batch.chance[index]
            if batch.blind_answers:
                scores["blind"] = vqa_accuracy(batch.blind_answers[index], accepted)
            family = batch.families[index].replace(" ", "_")
            exact = exact_match(answer, accepted)
            groups = {f"{name}\texact\t{name}_exact": [exact]}
            for kind, score in scores.items():
                stem = name if kind == "accuracy" else f"{name}_{kind}"
                groups[f"{name}\t{kind}\t{name}_{kind}"] = [score]
                groups[f"{name}\t{kind}\t{stem}/{family}"] = [score]
            self.means.update(groups)

    def _keep(self, trainer: pl.Trainer, batch: QuestionBatch, answers: list[str]) -> None:
        """Write all answers to the benchmark's file and keep the first for the picture."""
        file = self._file(trainer, batch.benchmark)
        for index, answer in enumerate(answers):
            row: dict[str, Any] = {
                "question": batch.questions[index],
                "answer": answer,
                "accepted": batch.answers[index],
                "family": batch.families[index],
            }
            if batch.rows:
                row = batch.rows[index] | {PREDICTION: answer, "prompt": batch.questions[index]}
            row |= {} if self.images_shown else HIDDEN
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if len(self.samples[batch.benchmark]) < self.num_samples:
                truth = Counter(batch.answers[index]).most_common(1)[0][0]
                said = "answer" if self.images_shown else "answer without the image"
                text = f"{batch.questions[index]}\ntruth: {truth}\n{said}: {answer}"
                image = batch.images[sum(batch.frames[:index]) if batch.frames else index]
                self.samples[batch.benchmark].append((image.cpu(), text))

    def _file(self, trainer: pl.Trainer, benchmark: str) -> TextIO:
        if benchmark not in self.files:
            folder = Path(trainer.default_root_dir) / "predictions"
            folder.mkdir(parents=True, exist_ok=True)
            rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            # A file without .part is complete.
            path = folder / f"{benchmark}{rank}.jsonl.part"
            self.files[benchmark] = path.open("w", encoding="utf-8")
        return self.files[benchmark]

    def _close(self, *, finished: bool) -> None:
        for file in self.files.values():
            file.close()
            if finished:
                path = Path(file.name)
                path.replace(path.with_suffix(""))
        self.files = {}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the unfinished files under their unfinished names."""
        self._close(finished=False)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        self._close(finished=True)
        sets: dict[str, tuple[str, int]] = {}
        for benchmark in names_on_all_ranks(self.questions):
            # A rank may have seen no question of a benchmark; it must take part in the sum.
            fingerprint = self.questions.get(benchmark) or SetFingerprint().to(pl_module.device)
            sets[benchmark] = fingerprint.compute()
        self._report_means(pl_module, split, sets)
        self._report_pope(pl_module, split, sets)
        self._report_published(pl_module, split, sets)
        for benchmark, samples in self.samples.items():
            if not samples:
                continue
            images, texts = zip(*samples, strict=True)
            show(trainer, f"{split}/{benchmark}_answers", captioned(images, texts, columns=6))

    def _details(self, baseline: str = "", *, of: str = "") -> str:
        """What a passport says beside the set: whose score it is, how asked, and the mean ``of`` what."""
        if baseline:
            return f"baseline: {baseline}"
        return ", ".join(filter(None, ["" if self.images_shown else WITHOUT_IMAGES, of]))

    def _report_means(
        self, pl_module: pl.LightningModule, split: str, sets: dict[str, tuple[str, int]]
    ) -> None:
        for key, (mean, count) in self.means.compute().items():
            benchmark, kind, name = key.split("\t")
            soft = "VQA soft accuracy (EvalAI normaliser)"
            passport = Passport(
                metric="exact match" if kind == "exact" else soft,
                reference=f"{benchmark} questions {sets[benchmark][0]}",
                num_samples=count,
                details=self._details("" if kind in ("accuracy", "exact") else kind),
            )
            full = f"{split}/{name}"
            self.report(pl_module, full, mean, passport, prog_bar=name.endswith("_accuracy"))

    def _report_pope(
        self, pl_module: pl.LightningModule, split: str, sets: dict[str, tuple[str, int]]
    ) -> None:
        settings = [name for name in sets if name.startswith("pope_")]
        found: dict[str, dict[str, Tensor]] = {}
        for name in [*settings, "pope"] if settings else []:
            metric = self.pope.get(name) or PopeScores(self.pope_style).to(pl_module.device)
            found[name] = metric.compute()
        if {f"pope_{setting}" for setting in POPE_SETTINGS} == set(settings):
            found["pope_mean"] = mean_scores([found[name] for name in settings])
        for name, scores in found.items():
            parts = [name] if name in settings else settings
            passport = Passport(
                metric=PopeScores.title,
                features=f"parser {self.pope_style}",
                reference=", ".join(f"{part} questions {sets[part][0]}" for part in parts),
                num_samples=sum(sets[part][1] for part in parts),
                details=self._details(of="mean over the settings" if name == "pope_mean" else ""),
            )
            for score, value in scores.items():
                self.report(pl_module, f"{split}/{name}_{score}", value, passport)

    def _report_published(
        self, pl_module: pl.LightningModule, split: str, sets: dict[str, tuple[str, int]]
    ) -> None:
        scores: dict[tuple[str, str], list[dict[str, Tensor]]] = defaultdict(list)
        for key in names_on_all_ranks(self.published):
            name, baseline, _ = [*key.split("\t"), "", ""][:3]
            metric = self.published.get(key)
            if metric is None:  # this rank saw none of it, but must take part
                metric = answer_metric(unjudged(name), self.style).to(pl_module.device)
                self.published[key] = metric
            scores[name, baseline].append(metric.compute())
        for (name, baseline), guessers in scores.items():
            questions, count = sets[name]
            details = self._details(baseline)
            if len(guessers) > 1:
                details += f", mean of {len(guessers)} guessers"
            metric = self.published[name]
            passport = metric.passport(f"{name} questions {questions}", count, details)
            for score, value in mean_scores(guessers).items():
                stem = f"{split}/{without_judge(name)}_{score}"
                full = stem + (f"_{baseline}" if baseline else "")
                self.report(pl_module, full, value, passport)


def _pictured(batch: QuestionBatch, keys: list[str]) -> tuple[Tensor, list[str]]:
    """Return one picture per question, with its key; of a clip the first frame and a hash of all."""
    if not batch.frames:
        return batch.images, keys
    clips = batch.images.split(batch.frames)
    hashes = (hashlib.blake2b(c.cpu().contiguous().numpy().tobytes()).hexdigest() for c in clips)
    texts = [f"{key}\0{digest}" for key, digest in zip(keys, hashes, strict=True)]
    return torch.stack([clip[0] for clip in clips]), texts
