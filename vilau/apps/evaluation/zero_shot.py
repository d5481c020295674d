"""ImageNet zero-shot: the share of validation pictures whose class's texts lie closest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vilau.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png")


def classify_imagenet(folder: Path, args: Any) -> dict[str, float]:
    """Return ``top1`` and ``top5`` of a tower on ``val/<class folder>/*`` with names from ``classnames.json``.

    Raises:
        DataError: a class has no name or no pictures.
    """
    import torch

    from vilau.apps.classify import PLACE, read_templates
    from vilau.apps.common import batches, open_tower, read_for
    from vilau.metrics.zero_shot import ZeroShotAccuracy, class_vectors

    names = read_names(folder)
    files = labelled_files(folder / "val", list(names))
    if args.limit:
        files = spread(files, args.limit)
    tower = open_tower(args.model, args)
    templates = read_templates(args.templates or "photos")
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
    return {name: float(value) for name, value in accuracy.compute().items()}


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
