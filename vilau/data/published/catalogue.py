"""All published benchmarks that ask questions, by name."""

from __future__ import annotations

from dataclasses import replace

from vilau.data.published.choices import CHOICE_BENCHMARKS
from vilau.data.published.images import IMAGE_BENCHMARKS
from vilau.data.published.ocr import OCR_FILE, OCR_REMARK, read_textvqa_with_tokens
from vilau.data.published.questions import PublishedBenchmark
from vilau.data.published.videos import VIDEO_BENCHMARKS

QUESTION_BENCHMARKS: dict[str, PublishedBenchmark] = {
    one.name: one for one in (*IMAGE_BENCHMARKS, *CHOICE_BENCHMARKS, *VIDEO_BENCHMARKS)
}
TEXTVQA = QUESTION_BENCHMARKS["textvqa"]
OCR_BENCHMARKS: dict[str, PublishedBenchmark] = {
    "textvqa": replace(
        TEXTVQA, needs=(*TEXTVQA.needs, OCR_FILE), read=read_textvqa_with_tokens, remark=OCR_REMARK
    )
}
"""Those that can be asked with OCR tokens in the question, so asked."""


def question_benchmarks(*, ocr: bool = False) -> dict[str, PublishedBenchmark]:
    """Return the benchmarks by name, with ``ocr`` those that have OCR tokens asked with them."""
    return QUESTION_BENCHMARKS | (OCR_BENCHMARKS if ocr else {})
