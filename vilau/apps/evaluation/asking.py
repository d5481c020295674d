"""Asking a model the questions of a published benchmark: answers go to a file as they come, and are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from vilau.data.published.questions import PublishedBenchmark, PublishedQuestion
    from vilau.types import Passport

PART = ".part"


def ask_benchmark(
    model: Any, benchmark: PublishedBenchmark, folder: Path, out: Path, args: Any
) -> tuple[dict[str, float], Passport]:
    """Ask all questions whose answers are not in ``out`` yet, and score; returns the scores and their passport.

    Writes ``<benchmark>.jsonl``: the published columns, ``prompt`` and ``prediction`` of each question. An
    unfinished file ends in ``.part``; the same command goes on with it.

    Raises:
        DataError: data are broken, media are missing, or the file holds answers to other questions.
    """
    from vilau.apps.evaluation.passports import question_passport
    from vilau.data.published.media import check_media
    from vilau.data.published.questions import limited
    from vilau.metrics.answers import answer_metric, unjudged
    from vilau.metrics.predictions import score_predictions

    questions = limited(benchmark.read(folder), args.limit)
    if not questions:
        raise DataError(f"{folder} holds no questions; put {benchmark.title}'s files there.")
    metric = answer_metric(unjudged(benchmark.name), args.style)
    if not args.without_images:
        check_media(questions, folder)
    path = out / f"{benchmark.name}.jsonl"
    if not path.exists():
        ask(model, questions, path, benchmark, args)
    else:
        check_same(path, kept_rows(path), questions, whole=True)
    scores = score_predictions([path], metric)
    if benchmark.name == "mmvet":
        write_for_judge(path, out / "mmvet-for-the-judge.json")
    return scores, question_passport(metric, benchmark, questions, folder, args)


def ask(
    model: Any,
    questions: Sequence[PublishedQuestion],
    path: Path,
    benchmark: PublishedBenchmark,
    args: Any,
) -> None:
    """Ask what is not answered yet; the file takes its name when all are."""
    from vilau.apps.common import batches
    from vilau.data.cache import disk_errors
    from vilau.metrics.predictions import HIDDEN

    part = path.with_name(path.name + PART)
    done = kept_rows(part) if part.exists() else []
    check_same(part, done, questions, whole=False)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # What was torn off in the middle of a line is asked again.
        part.write_text("".join(as_line(row) for row in done), encoding="utf-8")
        with part.open("a", encoding="utf-8") as file:
            for batch in batches(questions[len(done) :], args.batch_size, benchmark.title):
                for question, answer in zip(
                    batch, answers(model, batch, benchmark, args), strict=True
                ):
                    row = {**question.row, "prompt": question.prompt, "prediction": answer}
                    row |= HIDDEN if args.without_images else {}
                    file.write(as_line(row))
                file.flush()
        part.replace(path)


def answers(
    model: Any, batch: Sequence[PublishedQuestion], benchmark: PublishedBenchmark, args: Any
) -> list[str]:
    """Answer one batch of questions."""
    import torch

    from vilau.apps.common import moved
    from vilau.models.questions import answers_about, likeliest_letters, without_images

    prompts = [question.prompt for question in batch]
    if args.without_images:
        size = model.reading_size
        images, prompts, frames = without_images(torch.empty(0, 3, size, size), prompts)
    else:
        shown = [pictures(model, question, args) for question in batch]
        images, frames = moved(torch.cat(shown), model), [len(one) for one in shown]
    if batch[0].options:
        options = [question.options for question in batch]
        return likeliest_letters(model, images, prompts, options, frames)
    return answers_about(
        model,
        images,
        prompts,
        frames,
        max_new_tokens=args.max_new_tokens or benchmark.max_new_tokens,
    )


def pictures(model: Any, question: PublishedQuestion, args: Any) -> Tensor:
    """Read a question's picture, or the frames of its video: float ``(F, 3, S, S)``."""
    from vilau.data.media.pictures import normalise
    from vilau.data.published.media import question_pixels

    size = model.reading_size
    return normalise(question_pixels(question, size, fit=args.fit or "squash", quirks=args.quirks))


# ------------------------------------------------------------------ the file of answers


def as_line(row: dict[str, Any]) -> str:
    """One row of the file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file of answers; a last line that was torn is left out.

    Raises ``DataError`` where another line is broken.
    """
    rows = []
    *whole, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            row = json.loads(line.decode("utf-8"))
            rows.append({**row, "prompt": row["prompt"], "prediction": row["prediction"]})
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number} is no answer of this command; delete the file to ask again."
            ) from None
    return rows


def check_same(
    path: Path,
    rows: Sequence[dict[str, Any]],
    questions: Sequence[PublishedQuestion],
    *,
    whole: bool,
) -> None:
    """Raise ``DataError`` unless the rows answer the first of these questions, or all of them."""
    asked = [question.prompt for question in questions]
    held = [row["prompt"] for row in rows]
    if held != (asked if whole else asked[: len(held)]):
        raise DataError(
            f"{path} holds {len(held)} answers to other questions than the {len(asked)} of this command; write another "
            "--out, or delete the file to ask again."
        )


def write_for_judge(path: Path, target: Path) -> None:
    """Write MM-Vet's answers as its own evaluator reads them: {id: answer}."""
    from vilau.apps.files import written

    content = {row["question_id"]: row["prediction"] for row in kept_rows(path)}
    with written(target) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
