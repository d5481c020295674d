"""The data module of the published benchmarks that ask questions: any of them by name, from their own files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from vilau.data.media.pictures import Fit, check_words
from vilau.data.media.video import NUM_FRAMES
from vilau.data.module import StreamedDataModule
from vilau.data.names import check_benchmarks
from vilau.data.published.catalogue import QUESTION_BENCHMARKS
from vilau.data.published.media import check_media, question_pixels
from vilau.data.published.questions import PublishedQuestion, limited
from vilau.data.streaming import FixedLoader
from vilau.errors import ConfigError, DataError
from vilau.types import QuestionBatch

TABLE2 = ("vqav2", "gqa", "textvqa", "pope", "mme", "seedbench", "mmvet")
"""VILA-U's Table 2."""
TWIN = "world_"
"""What the names of drawn twins begin with."""


@dataclass(frozen=True)
class PublishedSet:
    """The questions of one benchmark; reads a batch's pictures and clips when it is built."""

    benchmark: str
    questions: Sequence[PublishedQuestion]
    image_size: int
    num_frames: int
    fit: Fit

    def __len__(self) -> int:
        return len(self.questions)

    def __call__(self, epoch: int, indices: np.ndarray) -> QuestionBatch:
        """Return the batch of the questions at ``indices`` ``(B,)``."""
        asked = [self.questions[index] for index in indices]
        shown = [
            question_pixels(one, self.image_size, num_frames=self.num_frames, fit=self.fit)
            for one in asked
        ]
        images = torch.from_numpy(np.concatenate(shown))  # (N, H, W, 3)
        return QuestionBatch(
            images=images.permute(0, 3, 1, 2).contiguous(),
            questions=[one.prompt for one in asked],
            answers=[accepted_answers(one) for one in asked],
            families=[str(one.row.get("category", one.row.get("data_type", ""))) for one in asked],
            benchmark=self.benchmark,
            rows=[one.row for one in asked],
            # Also where each is 1: the set's hash must not depend on which questions share a batch.
            frames=[len(one) for one in shown],
            options=[list(one.options) for one in asked] if asked[0].options else [],
        )


def accepted_answers(question: PublishedQuestion) -> list[str]:
    """Return the answers that a question's published columns hold: the one, or the annotators'."""
    if "answers" not in question.row:
        return [str(question.row["answer"])]
    said = question.row["answers"]
    return [str(one["answer"]) if isinstance(one, dict) else str(one) for one in said]


class PublishedBenchmarks(StreamedDataModule):
    """Published benchmarks by name, as test loaders of ``QuestionBatch`` for `QuestionAnswering`.

    Questions, prompts and pixels are those of ``vilau eval``, which can also say what is missing:
    ``vilau eval --suite table2 --data FOLDER --check``.

    Args:
        folder: holds a folder per benchmark, ``<folder>/<benchmark>/``, with the benchmark's own files
            (``seedbench_ranked`` reads those of ``seedbench``).
        benchmarks: names of `vilau.data.published.catalogue.QUESTION_BENCHMARKS`.
        image_size: side of the pictures in pixels, the model's.
        global_batch_size: questions per step over all devices.
        num_questions: only the first so many of each benchmark, and those that count only together with the
            last; None: all.
        num_frames: frames of a clip that the model sees.
        fit: how a picture becomes a square, see `vilau.data.media.pictures`.
        num_workers: loader processes per device; they read the pictures.
        seed: as of every data module; nothing here is random.

    Raises:
        ConfigError: a benchmark is unknown or asked twice, or a setting makes no sense.
    """

    def __init__(
        self,
        folder: str,
        benchmarks: tuple[str, ...] = TABLE2,
        image_size: int = 256,
        global_batch_size: int = 64,
        num_questions: int | None = None,
        num_frames: int = NUM_FRAMES,
        fit: Fit = "squash",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        for name in benchmarks:
            if name.startswith(TWIN):
                raise ConfigError(
                    f"data.benchmarks holds '{name}', which is drawn; write {_published(name)}, or data.class_path "
                    "vilau.data.twin_benchmarks.TwinBenchmarks."
                )
        check_benchmarks(benchmarks, QUESTION_BENCHMARKS)
        for key, value in (("num_questions", num_questions), ("num_frames", num_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"data.{key} is {value}; write at least 1.")
        try:
            check_words(fit, None)
        except ConfigError as error:
            raise ConfigError(f"data.{error}") from None
        self.folder, self.benchmarks = Path(os.path.expanduser(folder)), tuple(benchmarks)
        self.num_questions, self.num_frames, self.fit = num_questions, num_frames, fit
        self.sets: list[PublishedSet] = []

    def setup(self, stage: str | None = None) -> None:
        """Read the questions; a second call has nothing to do.

        Raises:
            DataError: files, pictures or videos are missing, or a file is broken.
        """
        if self.sets:
            return
        self._check_files()
        self.sets = [self._set(name) for name in self.benchmarks]

    def test_dataloader(self) -> list[FixedLoader]:
        """One loader per benchmark, in the order of ``benchmarks``."""
        return [self._fixed_loader(found, np.arange(len(found))) for found in self.sets]

    def _check_files(self) -> None:
        """Raise ``DataError`` naming everything that is missing of all benchmarks."""
        missing = [
            f"{one.folder}/{need}"
            for one in map(QUESTION_BENCHMARKS.__getitem__, self.benchmarks)
            for need in one.needs
            if not (self.folder / one.folder / need).exists()
        ]
        if missing:
            raise DataError(
                f"data.folder is {self.folder}, which lacks {', '.join(missing)}; put the benchmarks' own files "
                "there, name the folder that holds them, or leave these benchmarks out of data.benchmarks."
            )

    def _set(self, name: str) -> PublishedSet:
        benchmark = QUESTION_BENCHMARKS[name]
        folder = self.folder / benchmark.folder
        questions = limited(benchmark.read(folder), self.num_questions)
        if not questions:
            raise DataError(f"{folder} holds no questions; put {benchmark.title}'s files there.")
        check_media(questions, folder)
        if benchmark.folder == "seedbench" and not any(one.video for one in questions):
            rank_zero_warn(
                f"{folder} has no videos in use: {benchmark.title} asks about pictures alone, and gives no "
                "score of all."
            )
        return PublishedSet(name, questions, self.image_size, self.num_frames, self.fit)


def _published(twin: str) -> str:
    """Name what a twin stands for, or all there is."""
    name = twin.removeprefix(TWIN)
    return (
        f"'{name}'" if name in QUESTION_BENCHMARKS else f"some of {', '.join(QUESTION_BENCHMARKS)}"
    )
