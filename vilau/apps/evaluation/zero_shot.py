"""ImageNet zero-shot: the share of validation pictures whose class's texts lie closest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.errors import DataError

if TYPE_CHECKING:
    from vilau.types import Passport

SUFFIXES = (".jpeg", ".jpg", ".png")
OPENAI = "openai"
CLEANED_NAMES = "d3fe6583bf02"
"""Hash of open_clip 3.3.0's 1000 cleaned class names in the order of the folders."""


def classify_imagenet(folder: Path, args: Any) -> tuple[dict[str, float], Passport]:
    """Return ``top1`` and ``top5`` of a tower on ``val/<class folder>/*`` with names from ``classnames.json``,
    and their passport: whose names and templates, how pictures were cut, how many.

    Raises:
        DataError: a class has no name or no pictures.
    """
    import torch

    from vilau.apps.classify import PLACE
    from vilau.apps.common import batches, open_tower, read_for
    from vilau.metrics.zero_shot import ZeroShotAccuracy, class_vectors

    names = read_names(folder)
    templates = named_templates(args.templates or OPENAI)
    every = labelled_files(folder / "val", list(names))
    files = spread(every, args.limit) if args.limit else every
    tower = open_tower(args.model, args)
    texts = [[template.replace(PLACE, name) for template in templates] for name in names.values()]
    accuracy = ZeroShotAccuracy().to(next(tower.parameters()).device)
    with torch.inference_mode():
        vectors = class_vectors(tower.text_features, texts)
        for batch in batches(files, args.batch_size, "ImageNet"):
            pictures = [path for path, _ in batch]
            images = read_for(
                tower, pictures, tower.spec.image_size, args.fit or "crop", args.quirks
            )
            labels = torch.tensor([label for _, label in batch], device=vectors.device)
            accuracy.update(tower.image_features(images).float(), labels, vectors)
    scores = {name: float(value) for name, value in accuracy.compute().items()}
    return scores, _passport(list(names.values()), templates, files, len(every), args)


def named_templates(name: str) -> list[str]:
    """Return the templates ``openai``, ``photos`` or of a file.

    Raises ``DataError`` for a file that is missing, or a template without one place for the class.
    """
    from vilau.apps.classify import read_templates
    from vilau.data.zero_shot import OPENAI_TEMPLATES

    return list(OPENAI_TEMPLATES) if name == OPENAI else read_templates(name)


def _passport(
    names: Sequence[str],
    templates: Sequence[str],
    files: Sequence[tuple[Path, int]],
    num_all: int,
    args: Any,
) -> Passport:
    from vilau.apps.evaluation.passports import shown_as
    from vilau.metrics.passport import text_hash
    from vilau.types import Passport

    held = text_hash(names)
    whose = "open_clip's cleaned names" if held == CLEANED_NAMES else "names of its own"
    chosen = Path(args.templates or OPENAI).name
    details = [
        f"{len(names)} classes, {whose} {held}",
        f"templates {chosen} ({len(templates)}) {text_hash(templates)}",
        *shown_as(args, "crop"),
        *([f"limit {args.limit} of {num_all}"] if args.limit else []),
    ]
    shown = text_hash(f"{path.parent.name}/{path.name}" for path, _ in files)
    return Passport(
        metric="zero-shot accuracy (template mean, renormalised)",
        reference=f"val images {shown} by name",
        num_samples=len(files),
        details=", ".join(details),
    )


def spread(files: list[tuple[Path, int]], limit: int) -> list[tuple[Path, int]]:
    """Return at most ``limit`` of the pictures, evenly from all classes."""
    num = min(limit, len(files))
    return [files[place * len(files) // num] for place in range(num)]


def read_names(folder: Path) -> dict[str, str]:
    """Return the class names by folder, in the order of the folders."""
    from vilau.data.published.questions import read_json_file

    path = folder / "classnames.json"
    names = read_json_file(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(
            f'{path} is no object of names by class folder; write {{"n01440764": "tench", ...}}.'
        )
    if len(names) < 2:
        raise DataError(f"{path} names {len(names)} classes; write all of them.")
    return dict(sorted(names.items()))


def labelled_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Return the pictures of all classes with their class's place; raises ``DataError`` for a class without any."""
    found = []
    for label, name in enumerate(classes):
        inside = folder / name
        files = sorted(inside.iterdir()) if inside.is_dir() else []
        files = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(
                f"{inside} holds no pictures; put class {name} of ImageNet's validation set there."
            )
        found += [(file, label) for file in files]
    return found
