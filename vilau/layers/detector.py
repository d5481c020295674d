"""A one-stage detector of drawn scenes: it judges generated pictures, and its features measure
their distance.

The picture is cut into ``G x G`` cells of eight pixels; every cell says whether the centre of a
thing lies in it, what the thing looks like, where exactly the centre is and how large it is. The
scene's background is read from the pooled feature, and the same pooled feature is the ``(B, C)``
embedding a Frechet distance is taken in.

``B`` images, ``G`` cells per side, ``C`` feature width, ``A`` values of an attribute.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vilau.errors import CheckpointError, DataError

CELL = 8
"""Pixels per cell: three convolutions of stride two."""

EDGE = 0.125
"""A centre this close to a cell's edge (in cells) counts for the neighbour too: between two cells
both fire, and overlapping finds are merged afterwards, so no thing is lost because each cell left
it to the other."""

OVERLAP = 0.6
"""Finds closer than this share of their radii's sum are one thing seen twice."""


@dataclass
class Detections:
    """Raw predictions."""

    objectness: Tensor
    """``(B, G, G)`` logits: the centre of a thing lies here."""
    attributes: dict[str, Tensor]
    """For each attribute ``(B, G, G, A)`` logits."""
    geometry: Tensor
    """``(B, G, G, 3)``: x and y of the centre from the cell's corner, and the radius, all in cells.
    """
    background: Tensor
    """``(B, A)`` logits."""


@dataclass
class DetectionTargets:
    """What `Detections` should say; entries of cells without a thing mean nothing."""

    cells: Tensor
    """bool ``(B, G, G)``."""
    attributes: dict[str, Tensor]
    """For each attribute int64 ``(B, G, G)``."""
    geometry: Tensor
    """float ``(B, G, G, 3)``."""
    background: Tensor
    """int64 ``(B,)``."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to the same shape."""
        return F.relu(hidden + self.body(hidden))


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class SceneDetector(nn.Module):
    """Find the things of a drawn scene.

    Args:
        attributes: for each attribute of a thing (``shape``, ``color``, ...) its possible values,
            in order.
        backgrounds: the possible backgrounds, in order.
        image_size: side of the square pictures the network works on; others are resized to it.
        channels: widths of the three stages; the last is the feature width.
        trained_on: what the weights were trained on, e.g. the drawn world's version; kept in
            ``config.json``.
    """

    def __init__(
        self,
        *,
        attributes: Mapping[str, Sequence[str]],
        backgrounds: Sequence[str],
        image_size: int = 64,
        channels: tuple[int, int, int] = (24, 48, 64),
        trained_on: str = "",
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.attributes = {name: list(values) for name, values in attributes.items()}
        self.backgrounds = list(backgrounds)
        self.image_size = image_size
        self.channels = (first, second, third)
        self.trained_on = trained_on
        self.num_features = third
        self.trunk = nn.Sequential(
            _convolution(3, first, kernel=5, stride=2),
            _convolution(first, first),
            _convolution(first, second, stride=2),
            ResidualBlock(second),
            _convolution(second, third, stride=2),
            ResidualBlock(third),
            ResidualBlock(third),
        )
        self.head = nn.Conv2d(third, 1 + sum(map(len, self.attributes.values())) + 3, 1)
        self.background_head = nn.Linear(third, len(self.backgrounds))

    # ------------------------------------------------------------------ prediction

    def prepare(self, images: Tensor) -> Tensor:
        """Turn uint8 ``(B, 3, H, W)`` into floats in [-1, 1] of the network's own size."""
        pixels = images.float() / 127.5 - 1.0
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return pixels

    def forward(self, pixels: Tensor) -> Detections:
        """Predict from float ``(B, 3, image_size, image_size)`` in [-1, 1]."""
        hidden = self.trunk(pixels)
        cells = self.head(hidden).float().permute(0, 2, 3, 1)
        sizes = [1, *map(len, self.attributes.values()), 3]
        objectness, *attributes, geometry = cells.split(sizes, dim=-1)
        return Detections(
            objectness=objectness[..., 0],
            attributes=dict(zip(self.attributes, attributes, strict=True)),
            geometry=geometry,
            background=self.background_head(hidden.mean(dim=(2, 3))).float(),
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features ``(B, num_features)`` of uint8 images ``(B, 3, H, W)``."""
        pixels = self.prepare(images).to(self.background_head.weight.dtype)
        return self.trunk(pixels).mean(dim=(2, 3))

    @torch.no_grad()
    def scenes(self, images: Tensor, *, threshold: float = 0.5) -> list[dict[str, Any]]:
        """Read the scene out of each uint8 image ``(B, 3, H, W)``.

        Returns one dictionary per image with ``image_size``, ``background`` and ``things`` (the
        attributes, ``x``, ``y`` and ``radius`` in pixels of the given image, and ``confidence``),
        surest thing first.
        """
        pixels = self.prepare(images).to(self.background_head.weight.dtype)
        return self._read(self(pixels), image_size=images.shape[-1], threshold=threshold)

    def _read(
        self, found: Detections, *, image_size: int, threshold: float
    ) -> list[dict[str, Any]]:
        pixels_per_cell = CELL * image_size / self.image_size
        confidence_BGG = found.objectness.sigmoid().cpu()
        values = {name: logits.argmax(-1).cpu() for name, logits in found.attributes.items()}
        geometry = found.geometry.cpu()
        backgrounds = found.background.argmax(-1).tolist()
        scenes = []
        for index, background in enumerate(backgrounds):
            things = []
            for row, column in (confidence_BGG[index] > threshold).nonzero().tolist():
                x, y, radius = geometry[index, row, column].tolist()
                thing: dict[str, Any] = {
                    name: self.attributes[name][int(values[name][index, row, column])]
                    for name in self.attributes
                }
                thing["x"] = (column + x) * pixels_per_cell
                thing["y"] = (row + y) * pixels_per_cell
                thing["radius"] = radius * pixels_per_cell
                thing["confidence"] = float(confidence_BGG[index, row, column])
                things.append(thing)
            scenes.append(
                {
                    "image_size": image_size,
                    "background": self.backgrounds[background],
                    "things": _without_doubles(things),
                }
            )
        return scenes

    # ------------------------------------------------------------------ training

    def targets_from_scenes(self, scenes: Sequence[Mapping[str, Any]]) -> DetectionTargets:
        """Build targets from scenes in the form that `scenes` returns (``confidence`` is not
        needed).

        Raises:
            DataError: a scene holds an attribute value or a background that this detector does not
                know.
        """
        grid = self.image_size // CELL
        shape = (len(scenes), grid, grid)
        targets = DetectionTargets(
            cells=torch.zeros(shape, dtype=torch.bool),
            attributes={name: torch.zeros(shape, dtype=torch.long) for name in self.attributes},
            geometry=torch.zeros(*shape, 3),
            background=torch.zeros(len(scenes), dtype=torch.long),
        )
        for index, scene in enumerate(scenes):
            targets.background[index] = _position(
                "background", scene["background"], self.backgrounds
            )
            pixels_per_cell = CELL * scene["image_size"] / self.image_size
            for thing in scene["things"]:
                self._aim(targets, index, thing, pixels_per_cell)
        return targets

    def _aim(
        self,
        targets: DetectionTargets,
        index: int,
        thing: Mapping[str, Any],
        pixels_per_cell: float,
    ) -> None:
        """Write one thing into its own cell and into the neighbours whose edge it touches."""
        codes = {
            name: _position(name, thing[name], known) for name, known in self.attributes.items()
        }
        grid = targets.cells.shape[-1]
        x, y = thing["x"] / pixels_per_cell, thing["y"] / pixels_per_cell
        own = (min(int(y), grid - 1), min(int(x), grid - 1))
        for row in _cells_at(y, grid):
            for column in _cells_at(x, grid):
                if targets.cells[index, row, column] and (row, column) != own:
                    continue  # another thing's own cell, or a neighbour already taken
                targets.cells[index, row, column] = True
                for name, code in codes.items():
                    targets.attributes[name][index, row, column] = code
                targets.geometry[index, row, column] = torch.tensor(
                    [x - column, y - row, thing["radius"] / pixels_per_cell]
                )

    def loss(self, found: Detections, targets: DetectionTargets) -> Tensor:
        """Return the scalar training loss; the targets may lie on another device."""
        device = found.objectness.device
        cells = targets.cells.to(device)
        # Three of four cells or more are empty; the weights balance them against the things and
        # bring the terms to one scale (all are about 1 after the first hundred steps).
        total = 4.0 * F.binary_cross_entropy_with_logits(
            found.objectness, cells.float(), pos_weight=torch.tensor(3.0, device=device)
        )
        total = total + 0.5 * F.cross_entropy(found.background, targets.background.to(device))
        if not cells.any():
            return total
        for name, logits in found.attributes.items():
            total = total + F.cross_entropy(
                logits[cells], targets.attributes[name].to(device)[cells]
            )
        wanted = targets.geometry.to(device)[cells]
        return total + 5.0 * F.smooth_l1_loss(found.geometry[cells], wanted)

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and, unless the network is on the meta device,
        ``model.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.head.weight.is_meta:
            state = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
            save_file(state, folder / "model.safetensors.part")
            # safetensors makes files that only their owner can read; a package's are for everyone.
            (folder / "model.safetensors.part").chmod(0o644)
            os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
        config = {
            "class": "SceneDetector",
            "attributes": self.attributes,
            "backgrounds": self.backgrounds,
            "image_size": self.image_size,
            "channels": list(self.channels),
            "trained_on": self.trained_on,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, in evaluation mode; under ``torch.device("meta")`` without the
        weights.

        Raises:
            CheckpointError: a file is missing, unreadable, or of another architecture.
        """
        folder = Path(folder)
        config = _read_config(folder / "config.json")
        detector = cls(
            attributes=config["attributes"],
            backgrounds=config["backgrounds"],
            image_size=config["image_size"],
            channels=tuple(config["channels"]),
            trained_on=config["trained_on"],
        )
        if not detector.head.weight.is_meta:
            weights = folder / "model.safetensors"
            if not weights.is_file():
                raise CheckpointError(
                    f"{weights} is missing; a detector's folder holds config.json and "
                    "model.safetensors, "
                    "so copy the whole folder or train the detector again."
                )
            try:
                detector.load_state_dict(load_file(weights))
            except (SafetensorError, RuntimeError) as error:
                raise CheckpointError(
                    f"{weights} does not fit the detector its config.json describes "
                    f"({str(error).splitlines()[-1].strip()}); train it again or restore both "
                    "files."
                ) from error
        return detector.eval().requires_grad_(False)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; name a folder that a SceneDetector was saved in."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); restore it or train the detector again."
        ) from error
    if not isinstance(config, dict) or config.get("class") != "SceneDetector":
        held = config.get("class") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(
            f"{path} describes a {held}, not a SceneDetector; name a folder that a SceneDetector "
            "was saved in."
        )
    return config


def _position(name: str, value: str, known: list[str]) -> int:
    if value not in known:
        raise DataError(
            f"A scene holds the {name} '{value}', which this detector does not know (it knows "
            f"{', '.join(known)}); draw scenes of these or train a detector for the new {name}."
        )
    return known.index(value)


def _cells_at(position: float, grid: int) -> range:
    """Return the rows (or columns) in which a centre at ``position`` (in cells) counts."""
    first = max(0, int(position - EDGE))
    return range(min(first, grid - 1), min(int(position + EDGE), grid - 1) + 1)


def _without_doubles(things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the surest of finds that lie closer than `OVERLAP` of their radii's sum."""
    kept: list[dict[str, Any]] = []
    for thing in sorted(things, key=lambda one: -one["confidence"]):
        if all(
            (thing["x"] - other["x"]) ** 2 + (thing["y"] - other["y"]) ** 2
            > (OVERLAP * (thing["radius"] + other["radius"])) ** 2
            for other in kept
        ):
            kept.append(thing)
    return kept
