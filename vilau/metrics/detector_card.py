"""The card of a shipped measuring network: its accuracy and sensitivity on scenes it never saw.

``python -m vilau.metrics.detector_card FOLDER judge`` (or ``features``) measures and writes
``FOLDER/card.md``.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vilau.layers.detector import SceneDetector
from vilau.layers.scene_record import scene_agreement, scene_record
from vilau.layers.spoiling import add_noise, blur, halve_and_restore
from vilau.metrics.assets import load_world_detector
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.passport import weights_hash
from vilau.world.render import render
from vilau.world.scene import WORLD_VERSION, scene_at

CHUNK = 250
Change = Callable[[Tensor], Tensor]


def drawn_images(number: int, *, start: int = 0, split: str = "test") -> tuple[Tensor, list[str]]:
    """Draw scenes of level base with all attribute combinations, held-out ones too.

    Returns:
        uint8 ``(number, 3, 64, 64)`` and the scenes as JSON.
    """
    scenes = [
        scene_at(split, index, level="base", held_out="any")
        for index in range(start, start + number)
    ]
    pixels = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    return pixels.permute(0, 3, 1, 2).contiguous(), [scene.to_json() for scene in scenes]


def changes() -> dict[str, Change]:
    """Return the ways pictures are spoilt for the card, each on uint8 images."""

    def on_pixels(change: Change) -> Change:
        def changed(images: Tensor) -> Tensor:
            pixels = change(images.float() / 127.5 - 1.0)
            return ((pixels + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

        return changed

    def noise(sigma: float) -> Change:
        return lambda x: add_noise(x, sigma, generator=torch.Generator().manual_seed(0))

    return {
        "clean": lambda images: images,
        "blur x1": on_pixels(blur),
        "blur x3": on_pixels(lambda x: blur(blur(blur(x)))),
        "noise 4": on_pixels(noise(4.0)),
        "noise 8": on_pixels(noise(8.0)),
        "noise 16": on_pixels(noise(16.0)),
        "half resolution": on_pixels(halve_and_restore),
    }


def reading_accuracy(
    detector: SceneDetector, images: Tensor, scenes: list[str]
) -> dict[str, float]:
    """Return the means of `scene_agreement` between what is read from the images and the truth."""
    records = [one for part in images.split(CHUNK) for one in detector.scenes(part)]
    agreements = [
        scene_agreement(record, scene_record(scene))
        for record, scene in zip(records, scenes, strict=True)
    ]
    return {name: sum(one[name] for one in agreements) / len(agreements) for name in agreements[0]}


def frechet_between(first: Tensor, second: Tensor, folder: str | Path) -> float:
    """Return the Frechet distance of two sets of uint8 images in a saved network's features."""
    distance = FrechetDistance("world", str(folder))
    for images, real in ((first, True), (second, False)):
        for part in images.split(CHUNK):
            distance.update(part, real=real)
    return float(distance.compute())


def write_card(
    folder: str | Path,
    kind: Literal["judge", "features"],
    *,
    num_images: int = 2000,
    note: str = "",
) -> None:
    """Measure a saved network and write its ``card.md``.

    Args:
        folder: where the network was saved.
        kind: ``judge`` for how well it reads spoilt pictures, ``features`` for its Frechet
            distances too.
        num_images: test scenes to read; distances take two disjoint sets of up to 2.5 times this.
        note: a sentence on where these weights differ from the recipe's.
    """
    detector = load_world_detector(folder)
    images, scenes = drawn_images(num_images)
    number = sum(parameter.numel() for parameter in detector.parameters())
    trained = "with" if kind == "judge" else "without"
    lines = [
        f"# {'Scene judge' if kind == 'judge' else 'Feature network'} of the drawn world",
        "",
        f"An 8x8-cell detector, {number:,} parameters, trained on level `base` of drawn-world "
        f"v{WORLD_VERSION} (all attribute combinations) {trained} spoilt pictures; weights "
        f"{weights_hash(folder)}.",
        "Recipe: `experiments/pretrain_world_judges.yaml`. Measured by "
        f"`python -m vilau.metrics.detector_card FOLDER {kind}`",
        f"on {num_images} scenes of the split `test`. Set exact: all things right by shape and "
        "colour. Full exact: size, texture and background too.",
        *([note] if note else []),
        "",
        "| pictures | set exact | full exact | count | shape | color | size | texture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = ("scene_exact", "full_exact", "count", "shape", "color", "size", "texture")
    for name, change in changes().items():
        accuracy = reading_accuracy(detector, change(images), scenes)
        cells = " | ".join(f"{accuracy[column]:.4f}" for column in columns)
        lines.append(f"| {name} | {cells} |")
    if kind == "features":
        lines += ["", *_distance_lines(folder, images, num_images)]
    Path(folder, "card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _distance_lines(folder: str | Path, images: Tensor, num_images: int) -> list[str]:
    largest = num_images * 5 // 2
    real = drawn_images(largest, start=num_images)[0]
    other = drawn_images(largest, start=num_images + largest)[0]
    lines = [
        "Frechet distances (64 pooled features). Real against other real pictures is the floor; "
        f"the spoilt pictures are {num_images} real ones against themselves.",
        "",
        "| comparison | distance |",
        "|---|---|",
    ]
    for number in (num_images // 2, num_images, largest):
        floor = frechet_between(real[:number], other[:number], folder)
        lines.append(f"| real, {number} against {number} others | {floor:.3f} |")
    for name, change in changes().items():
        if name != "clean":
            lines.append(f"| {name} | {frechet_between(images, change(images), folder):.3f} |")
    return lines


def main() -> None:
    """Write the card of one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("kind", choices=("judge", "features"))
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--note", default="")
    arguments = parser.parse_args()
    write_card(
        arguments.folder, arguments.kind, num_images=arguments.num_images, note=arguments.note
    )


if __name__ == "__main__":
    main()
