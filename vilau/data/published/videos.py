"""Readers of the zero-shot video questions: MSVD, MSRVTT, TGIF and ActivityNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vilau.data.published.questions import (
    PublishedBenchmark,
    PublishedQuestion,
    fields,
    read_json_file,
)
from vilau.errors import DataError

SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".gif")
REMARK = "string match; for the papers' accuracy a judge model must read the predictions"


def read_video_qa(folder: Path) -> list[PublishedQuestion]:
    """``test_q.json`` [{video_name, question, question_id}], ``test_a.json`` [{answer, question_id}], ``videos/``."""
    asked, truths = folder / "test_q.json", folder / "test_a.json"
    answers = {}
    for row in read_json_file(truths):
        number, answer = fields(row, ("question_id", "answer"), truths)
        answers[number] = answer
    found = []
    for row in read_json_file(asked):
        number, name, question = fields(row, ("question_id", "video_name", "question"), asked)
        if number not in answers:
            raise DataError(
                f"{truths} has no answer to question {number} of test_q.json; put the pair there."
            )
        columns = {"question_id": number, "question": question, "answer": str(answers[number])}
        media = (_video(folder / "videos", str(name)),)
        found.append(PublishedQuestion(question, columns, media, video=True))
    return found


def read_activitynetqa(folder: Path) -> list[PublishedQuestion]:
    """The same with questions as lmms-eval asks them: a capital first and a question mark last."""
    return [
        replace(question, prompt=f"{question.prompt.capitalize()}?")
        for question in read_video_qa(folder)
    ]


def _video(folder: Path, name: str) -> Path:
    """Return the file of a video; one that is not there is named with its likeliest ending."""
    for stem in (name, f"v_{name}"):
        for suffix in ("", *SUFFIXES):
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    return folder / f"{name}.mp4"


NEEDS = ("test_q.json", "test_a.json", "videos")
VIDEO_BENCHMARKS = tuple(
    PublishedBenchmark(name, title, NEEDS, read, max_new_tokens=64, remark=REMARK)
    for name, title, read in (
        ("msvd_qa", "MSVD-QA", read_video_qa),
        ("msrvtt_qa", "MSRVTT-QA", read_video_qa),
        ("tgif_qa", "TGIF-QA", read_video_qa),
        ("activitynetqa", "ActivityNet-QA", read_activitynetqa),
    )
)  # fmt: skip
