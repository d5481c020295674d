"""The drawn world's twins as tasks of lmms-eval: questions, pictures, and YAML files that name its own scorers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from vilau.data.cache import disk_errors, temporary_folder
from vilau.data.media.images import encode_png
from vilau.data.names import nearest
from vilau.data.twins.sets import TwinSet
from vilau.errors import ConfigError, DataError

SCORED = ("world_pope", "world_mme", "world_gqa", "world_vqav2", "world_seedbench")
"""Twins whose originals lmms-eval scores by functions that take our rows as they are."""


def write_tasks(folder: Path, sets: Sequence[TwinSet]) -> list[str]:
    """Write a folder for ``lmms_eval --include_path`` and return the names of its tasks.

    Pictures are PNG files beside a JSONL file of questions per task, so writing needs neither lmms-eval nor
    its libraries. Nothing is left behind if writing fails.

    Raises:
        ConfigError: a twin has no task.
        DataError: the folder exists or cannot be written.
    """
    for questions in sets:
        if questions.benchmark not in SCORED:
            raise ConfigError(
                f"'{questions.benchmark}' is no task of lmms-eval. {nearest(questions.benchmark, SCORED)}"
            )
    target = folder.expanduser().absolute()
    if target.exists():
        raise DataError(f"{target} already exists; delete it or name another folder.")
    with disk_errors(target):
        part = temporary_folder(target)
        try:
            part.mkdir(parents=True)
            _write_text(part / "utils.py", _template("utils.py.txt"))
            for questions in sets:
                _write_task(part, target, questions)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return [questions.benchmark for questions in sets]


def _write_task(part: Path, target: Path, questions: TwinSet) -> None:
    """Write one task into ``part``, with the paths it will have in ``target``."""
    name = questions.benchmark
    pictures = part / name / "pictures"
    pictures.mkdir(parents=True)
    # json.dumps: a path may hold what YAML would read as its own marks.
    text = _template(f"{name}.yaml").replace('"{folder}/', json.dumps(f"{target / name}/")[:-1])
    _write_text(part / f"{name}.yaml", text)
    lines = []
    for number, asked in enumerate(questions.asked):
        files = []
        for frame, pixels in enumerate(questions.pictures(number)):
            file = f"{number:06d}-{frame}.png"
            (pictures / file).write_bytes(encode_png(pixels))
            files.append(str(target / name / "pictures" / file))
        several = name == "world_seedbench"
        row: dict[str, Any] = {**asked.row, "image": files if several else files[0]}
        lines.append(json.dumps(row, ensure_ascii=False))
    _write_text(part / name / "questions.jsonl", "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _template(name: str) -> str:
    file = resources.files("vilau") / "adapters" / "lmms_tasks" / name
    return file.read_text(encoding="utf-8")
