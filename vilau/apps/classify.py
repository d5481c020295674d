"""``vilau classify TOWER IMAGE... --classes``: zero-shot, by the texts an image lies closest to."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.common import (
    add_images,
    add_model,
    at_least_one,
    batches,
    check_text,
    make_parser,
    open_tower,
    read_for,
    say,
)
from vilau.apps.files import find_images, read_lines
from vilau.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "{}"
BATCH_SIZE = 16


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "classify",
        "tell which of some classes an image shows (zero-shot)",
        more="Each class is put into every template; the normalised text features are averaged per class "
        "and compared with the image feature of the discrete codes. Probabilities are the softmax of the "
        "cosines times the tower's own scale: they say how the classes share one, not whether any fits.",
        example='vilau classify runs/quickstart/aligned/tower photo.png --classes "a red circle,a blue star"',
    )
    add_model(parser, "tower")
    add_images(parser)
    parser.add_argument(
        "--classes",
        required=True,
        metavar="LIST",
        help="a text file with one class per line, or classes separated by commas",
    )
    parser.add_argument(
        "--templates",
        metavar="FILE",
        help="a text file with one template per line, {} standing for the class; 'photos' for the "
        "usual ones of photographs (default: the class alone)",
    )
    parser.add_argument(
        "--top", type=at_least_one, default=5, help="classes shown per image (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Classify and print; returns the exit code."""
    import torch

    from vilau.metrics.zero_shot import class_vectors

    files = find_images(args.images)
    classes, templates = read_classes(args.classes), read_templates(args.templates)
    tower = open_tower(args.tower, args)
    texts = [[template.replace(PLACE, name) for template in templates] for name in classes]
    rows = []
    with torch.inference_mode():
        vectors = class_vectors(tower.text_features, texts)
        for batch in batches(files, BATCH_SIZE, "classifying"):
            images = read_for(tower, batch, tower.spec.image_size, args.fit, args.quirks)
            rows.append(tower.image_features(images).float() @ vectors.T)
        cosines = torch.cat(rows)
        shares = (cosines * tower.siglip.logit_scale.exp().float()).softmax(dim=-1)
    found = [
        {"image": str(file), "classes": ranked(classes, p, c, args.top)}
        for file, p, c in zip(files, shares.cpu(), cosines.cpu(), strict=True)
    ]
    if args.json:
        say(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for line in table(found):
            say(line)
    return 0


def ranked(
    classes: Sequence[str], shares: Tensor, cosines: Tensor, top: int
) -> list[dict[str, Any]]:
    """The likeliest classes with probability and cosine, best first."""
    order = shares.argsort(descending=True, stable=True)[:top].tolist()
    return [
        {"class": classes[i], "probability": float(shares[i]), "cosine": float(cosines[i])}
        for i in order
    ]


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for people."""
    width = max(len(row["class"]) for entry in found for row in entry["classes"])
    lines = []
    for entry in found:
        lines.append(entry["image"])
        for row in entry["classes"]:
            numbers = f"{row['probability']:7.2%}  cosine {row['cosine']:+.4f}"
            lines.append(f"  {row['class']:<{width}}  {numbers}")
    return lines


def read_classes(text: str) -> list[str]:
    """Read classes from a file or a list with commas; raises ``DataError`` below two different ones."""
    check_text("--classes", text)
    if Path(text).expanduser().is_file():
        classes = read_lines(text, "class")
    elif "," not in text and (Path(text).suffix or "/" in text):
        raise DataError(
            f"--classes names {text}, which does not exist; give a text file with one class per line, or "
            "classes separated by commas."
        )
    else:
        classes = [name.strip() for name in text.split(",") if name.strip()]
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(f"--classes holds {twice[0]!r} twice; write every class once.")
    if len(classes) < 2:
        few = "1 class, which every image would be" if classes else "no class"
        raise DataError(f"--classes holds {few}; write two or more.")
    return classes


def read_templates(name: str | None) -> list[str]:
    """Read templates; raises ``DataError`` for one without exactly one place for the class."""
    if name is None:
        return [PLACE]
    if name == "photos":
        from vilau.data.zero_shot import TEMPLATES

        return list(TEMPLATES)
    templates = read_lines(name, "template")
    for template in templates:
        if template.count(PLACE) != 1:
            raise DataError(
                f"{name} holds the template {template!r}; write {PLACE} once in it, where the class goes."
            )
    return templates
