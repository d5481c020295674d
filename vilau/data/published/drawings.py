"""Prompts of the published generation benchmarks, and where their scorers look for each picture or clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vilau.data.published.questions import fields, read_json_file
from vilau.errors import DataError

GENAI_COUNT = 527
CLIPS_PER_PROMPT = 5
"""VBench scores five clips of each prompt."""
META, IMAGES = "meta_data.json", "mjhq30k_imgs"
PROMPTS, SKILLS = "prompts.txt", "genai_skills.json"
VBENCH = "VBench_full_info.json"
LONGEST_NAME = 180


@dataclass(frozen=True)
class Wanted:
    """One picture or clip to be drawn: the prompt, and the file its scorer expects, under the output folder."""

    prompt: str
    file: str


@dataclass(frozen=True)
class DrawnBenchmark:
    """A benchmark of prompts to draw, the files it needs, how they are read, and who scores the drawings."""

    name: str
    title: str
    needs: tuple[str, ...]
    """Paths under its folder."""
    read: Callable[[Path], list[Wanted]]
    scorer: str


def read_mjhq(folder: Path) -> list[Wanted]:
    """MJHQ-30K: ``meta_data.json`` {hash: {prompt, category}}; drawn to ``<category>/<hash>.png``, in order of hash."""
    path = folder / META
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is no object of prompts by hash; put MJHQ-30K's file there.")
    found = []
    for name, row in sorted(content.items()):
        prompt, category = fields(row, ("prompt", "category"), path)
        _check_name(path, name)
        _check_name(path, category)
        found.append(Wanted(prompt, f"{category}/{name}.png"))
    return found


def read_genai(folder: Path) -> list[Wanted]:
    """GenAI-Bench-527: a prompt per line; drawn to ``00001.png`` and so on, counted from 1 as the skills are."""
    path = folder / PROMPTS
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put GenAI-Bench-527's file there."
        ) from error
    prompts = [line.strip() for line in lines]
    if len(prompts) != GENAI_COUNT or not all(prompts):
        raise DataError(
            f"{path} holds {sum(map(bool, prompts))} prompts on {len(prompts)} lines, GenAI-Bench-527 has "
            f"{GENAI_COUNT}; put its file there."
        )
    return [Wanted(prompt, f"{number:05d}.png") for number, prompt in enumerate(prompts, 1)]


def read_vbench(folder: Path) -> list[Wanted]:
    """VBench: ``VBench_full_info.json`` [{prompt_en, dimension}]; drawn to ``<prompt>-<0..4>.mp4``."""
    path = folder / VBENCH
    content = read_json_file(path)
    if not isinstance(content, list):
        raise DataError(f"{path} is no list of prompts; put VBench's file there.")
    prompts = dict.fromkeys(fields(row, ("prompt_en",), path)[0] for row in content)
    for prompt in prompts:
        # The scorer finds a clip by its prompt alone, so the name may not be changed.
        _check_name(path, prompt)
    return [
        Wanted(prompt, f"{prompt}-{number}.mp4")
        for prompt in prompts
        for number in range(CLIPS_PER_PROMPT)
    ]


def _check_name(path: Path, name: object) -> None:
    bad = not isinstance(name, str) or name.startswith(".") or any(mark in name for mark in "/\\\0")
    if bad or len(str(name).encode()) > LONGEST_NAME:
        raise DataError(
            f"{path} holds {str(name)[:60]!r}, which cannot be a file's name; put the published file there."
        )


DRAWN_BENCHMARKS: dict[str, DrawnBenchmark] = {
    one.name: one
    for one in (
        DrawnBenchmark("mjhq", "MJHQ-30K", (META, IMAGES), read_mjhq, "clean-fid 0.1.35"),
        DrawnBenchmark(
            "genai", "GenAI-Bench-527", (PROMPTS, SKILLS), read_genai,
            "t2v-metrics 3.0 with the weights of clip-flant5-xxl",
        ),
        DrawnBenchmark("vbench", "VBench", (VBENCH,), read_vbench, "VBench 0.1.5 and the script of its repository"),
    )
}  # fmt: skip
