"""What a number of a published benchmark measured, as the twins' numbers say it of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vilau.data.published.questions import PublishedBenchmark, PublishedQuestion
    from vilau.metrics.answer_metric import AnswerMetric
    from vilau.types import Passport

OCR_DETAIL = "OCR tokens in the question"


def question_passport(
    metric: AnswerMetric,
    benchmark: PublishedBenchmark,
    questions: Sequence[PublishedQuestion],
    folder: Path,
    args: Any,
) -> Passport:
    """Return the passport of a benchmark's scores, whose ``metric`` has computed them.

    The set's hash is of prompts, published columns, options and the names of files; a picture inside a table counts
    with its bytes.
    """
    from vilau.data.media.video import NUM_FRAMES
    from vilau.data.published.catalogue import OCR_BENCHMARKS
    from vilau.metrics.passport import SetFingerprint
    from vilau.types import WITHOUT_IMAGES

    fingerprint = SetFingerprint()
    fingerprint.update(texts=_keys(questions, folder))
    digest, count = fingerprint.compute()
    longest = args.max_new_tokens or benchmark.max_new_tokens
    hidden = args.without_images
    filmed = any(one.video for one in questions) and not hidden
    details = [
        *([WITHOUT_IMAGES, *computed_in(args)] if hidden else shown_as(args, "squash")),
        *([f"{NUM_FRAMES} frames"] if filmed else []),
        "options ranked" if questions[0].options else f"at most {longest} new tokens",
        *([OCR_DETAIL] if args.ocr and benchmark.name in OCR_BENCHMARKS else []),
        *([f"limit {args.limit}"] if args.limit else []),
    ]
    reference = f"{benchmark.name} questions {digest}, media by name"
    return metric.passport(reference, count, ", ".join(details))


def shown_as(args: Any, fit: str) -> list[str]:
    """Return how pictures were shown: the fit, and what else is not the default."""
    others = [f"quirks {args.quirks}"] if args.quirks else []
    return [f"fit {args.fit or fit}", *others, *computed_in(args)]


def computed_in(args: Any) -> list[str]:
    """Return what a model is computed in, where that is not as it was saved."""
    return [args.dtype] if args.dtype else []


def _keys(questions: Sequence[PublishedQuestion], folder: Path) -> Iterator[str]:
    for question in questions:
        media = [
            one.relative_to(folder).as_posix()
            if isinstance(one, Path)
            else hashlib.blake2b(one.data, digest_size=8).hexdigest()
            for one in question.media
        ]
        asked = [question.prompt, question.row, question.options, media]
        yield json.dumps(asked, ensure_ascii=False, sort_keys=True, default=str)
