"""The judge of generated pictures: a small network reads the scene, the drawn world's rules decide.

The network knows the world's level ``base``: shape, colour, size, texture, place and background. It
does not see parts, signs, or things hidden under others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vilau.errors import DataError
from vilau.layers.scene_record import ATTRIBUTES, scene_agreement, scene_record
from vilau.metrics.assets import WORLD_VERIFIER, load_world_detector
from vilau.metrics.passport import weights_hash
from vilau.world.judge import Requirement, judge, requirements_from_json
from vilau.world.scene import Scene, Thing

CHUNK = 256
"""Images per call of the network."""

PRESENT = {"has", "relation", "touching", "larger", "more_than"}
"""Requirements that ask for a thing like ``a`` to be there."""
PRESENT_BOTH = {"relation", "touching", "larger"}
"""... and for a thing like ``b``."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one picture."""

    exact: bool
    """All requirements hold."""
    soft: float
    """The share of requirements that hold."""
    named_things: float | None
    """The share of the things asked for by shape and colour that are there; None if none is."""


class SceneJudge(nn.Module):
    """Reads scenes out of pictures and judges them.

    Args:
        folder: a saved `SceneDetector`; None: the shipped verifier.

    Raises:
        CheckpointError: the weights are missing or of another version of the drawn world.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__()
        self.name = judge_name(folder)
        self.detector = load_world_detector(folder or WORLD_VERIFIER)

    def records(self, images: Tensor) -> list[dict[str, Any]]:
        """Return the scene record (see `vilau.layers.scene_record`) of uint8 ``(B, 3, H, W)``."""
        return [record for part in images.split(CHUNK) for record in self.detector.scenes(part)]

    def parse(self, images: Tensor) -> list[Scene]:
        """Return the scene each uint8 image ``(B, 3, H, W)`` shows."""
        return [_scene(record) for record in self.records(images)]

    def judge(self, images: Tensor, requirements: Sequence[str]) -> list[Judgement]:
        """Judge uint8 images ``(B, 3, H, W)`` by the requirements (JSON) of their prompts.

        Raises:
            DataError: a requirement asks for a part, which the network cannot see.
        """
        return [
            judge_scene(scene, text)
            for scene, text in zip(self.parse(images), requirements, strict=True)
        ]


def judge_scene(scene: Scene, requirements_json: str) -> Judgement:
    """Judge one scene; see `SceneJudge.judge`."""
    requirements = requirements_from_json(requirements_json)
    if not requirements:
        raise DataError(
            "A prompt came without requirements, so nothing can be judged; give it some."
        )
    if asks_for_part(requirements):
        raise DataError(
            "A prompt asks for a part (a border or a dot), which the judge of drawn scenes cannot "
            "see; leave out the skill 'part relation' or draw prompts of level base."
        )
    held = judge(scene, requirements)
    wanted = {pair for requirement in requirements for pair in _named_pairs(requirement)}
    there = wanted & {(thing.shape, thing.color) for thing in scene.things}
    return Judgement(
        exact=all(held),
        soft=sum(held) / len(held),
        named_things=len(there) / len(wanted) if wanted else None,
    )


def asks_for_part(requirements: Sequence[Requirement]) -> bool:
    """Whether a border or a dot of a thing is asked for, which no judge of drawn scenes can see."""
    return any(requirement.kind == "part" for requirement in requirements)


def judge_name(folder: str | Path | None = None) -> str:
    """Return the judge's name in passports."""
    return f"drawn-world verifier {weights_hash(folder or WORLD_VERIFIER)}"


class SceneExact(Metric):
    """How often the judge reads exactly the true scene out of pictures.

    The judge's weights are loaded at the first update, so that data without scenes needs none.

    Args:
        folder: a saved `SceneDetector`; None: the shipped verifier.
    """

    full_state_update = False
    sums: Tensor
    count: Tensor

    names = ("scene_exact", "full_exact", "count", *ATTRIBUTES)

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.judge: SceneJudge | None = None
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def judge_name(self) -> str:
        """The judge's name in passports."""
        return judge_name(self.folder)

    def update(self, images: Tensor, scenes: Sequence[str]) -> None:
        """Add uint8 images ``(B, 3, H, W)`` with their true scenes (JSON)."""
        if self.judge is None:
            self.judge = SceneJudge(self.folder).to(self.device)
        for record, text in zip(self.judge.records(images), scenes, strict=True):
            agreement = scene_agreement(record, scene_record(text))
            self.sums += torch.tensor(
                [agreement[name] for name in self.names], dtype=torch.float64, device=self.device
            )
            self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means of `scene_agreement`'s values; empty if there were no pictures."""
        if not self.count:
            return {}
        means = (self.sums / self.count).float()
        return dict(zip(self.names, means, strict=True))


def _scene(record: dict[str, Any]) -> Scene:
    things = tuple(
        Thing(**{name: thing[name] for name in (*ATTRIBUTES, "x", "y", "radius")})
        for thing in record["things"]
    )
    return Scene(things=things, background=record["background"], image_size=record["image_size"])


def _named_pairs(requirement: Requirement) -> list[tuple[str, str]]:
    counted = requirement.kind == "count" and requirement.op != "<=" and requirement.value > 0
    looks = [requirement.a] if requirement.kind in PRESENT or counted else []
    looks += [requirement.b] if requirement.kind in PRESENT_BOTH else []
    return [(one["shape"], one["color"]) for one in looks if "shape" in one and "color" in one]
