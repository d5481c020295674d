"""All published benchmarks that ask questions, by name."""

from __future__ import annotations

from vilau.data.published.choices import CHOICE_BENCHMARKS
from vilau.data.published.images import IMAGE_BENCHMARKS
from vilau.data.published.questions import PublishedBenchmark
from vilau.data.published.videos import VIDEO_BENCHMARKS

QUESTION_BENCHMARKS: dict[str, PublishedBenchmark] = {
    one.name: one for one in (*IMAGE_BENCHMARKS, *CHOICE_BENCHMARKS, *VIDEO_BENCHMARKS)
}
