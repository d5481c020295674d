"""What a picture must hold, as data; and the exact judgement of a scene against it.

A judge sees a ``Scene``: the truth behind a drawn picture, or what a parser or a detector found in
a generated one. Headline score: a picture is right when **all** requirements hold. The share of
requirements that hold flatters negation (an empty picture satisfies "no rings").
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vilau.errors import DataError
from vilau.world.things import SPACING, Scene, Thing, relations

JUDGE_MARGIN = 2.0
"""Pixels (of 64) by which a relation must hold in a picture; truths hold by twice as much."""
LARGER_RATIO = 1.15
"""A thing is larger than another when its radius is so many times the other's."""

Looks = Mapping[str, str]
"""Some of shape, color, size, texture with the word wanted of each; empty fits everything."""


@dataclass(frozen=True)
class Requirement:
    """One thing a judge checks. ``kind`` says which, and which fields it reads:

    ========== =====================================================================
    has        some thing looks like ``a``
    count      the number of things like ``a`` is ``op`` (==, >=, <=) ``value``
    relation   a thing like ``a`` is ``word`` (left of, ...) another like ``b``
    touching   a thing like ``a`` touches another like ``b``
    larger     a thing like ``a`` is clearly larger than another like ``b``
    more_than  there are more things like ``a`` than like ``b``
    background the background is ``word``
    part       a thing like ``a`` has the part ``b`` = {kind: border | dot, color: ...}
    all_are    there are things, and all look like ``a``
    ========== =====================================================================
    """

    kind: str
    a: Looks = field(default_factory=dict)
    b: Looks = field(default_factory=dict)
    op: str = ""
    value: int = 0
    word: str = ""


def requirements_to_json(requirements: Iterable[Requirement]) -> str:
    """A JSON list, one object per requirement, without the fields that are empty."""
    records = [
        {
            key: value
            for key, value in vars(requirement).items()
            if value or _is_counted(requirement, key)
        }
        for requirement in requirements
    ]
    return json.dumps(records, separators=(",", ":"))


def _is_counted(requirement: Requirement, key: str) -> bool:
    return requirement.kind == "count" and key == "value"


def requirements_from_json(text: str) -> tuple[Requirement, ...]:
    """Read what ``requirements_to_json`` wrote; raises DataError if it is something else."""
    try:
        requirements = tuple(Requirement(**record) for record in json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"requirements {text[:60]!r} are not a list of requirements ({error!r}); "
            "write the string that requirements_to_json() gives."
        ) from error
    for requirement in requirements:
        if requirement.kind not in _CHECKS:
            raise DataError(
                f"requirements: kind is {requirement.kind!r}; write one of {', '.join(_CHECKS)}."
            )
    return requirements


def judge(scene: Scene, requirements: Iterable[Requirement]) -> list[bool]:
    """Which requirements hold in the scene, in order."""
    return [_CHECKS[requirement.kind](scene, requirement) for requirement in requirements]


def satisfied(scene: Scene, requirements: Iterable[Requirement]) -> bool:
    """Whether all requirements hold in the scene."""
    return all(judge(scene, requirements))


# ------------------------------------------------------------------ the checks


def _like(thing: Thing, looks: Looks) -> bool:
    return all(getattr(thing, name) == word for name, word in looks.items())


def _number(scene: Scene, looks: Looks) -> int:
    return sum(_like(thing, looks) for thing in scene.things)


def _couples(scene: Scene, requirement: Requirement) -> Iterator[tuple[Thing, Thing]]:
    for first, second in itertools.permutations(scene.things, 2):
        if _like(first, requirement.a) and _like(second, requirement.b):
            yield first, second


def _count(scene: Scene, requirement: Requirement) -> bool:
    number, value = _number(scene, requirement.a), requirement.value
    return {"==": number == value, ">=": number >= value, "<=": number <= value}[requirement.op]


def _relation(scene: Scene, requirement: Requirement) -> bool:
    margin = JUDGE_MARGIN * scene.scale
    couples = _couples(scene, requirement)
    return any(requirement.word in relations(first, second, margin) for first, second in couples)


def _touching(scene: Scene, requirement: Requirement) -> bool:
    return any(
        math.hypot(first.x - second.x, first.y - second.y)
        < SPACING * (first.radius + second.radius)
        for first, second in _couples(scene, requirement)
    )


def _larger(scene: Scene, requirement: Requirement) -> bool:
    couples = _couples(scene, requirement)
    return any(first.radius > LARGER_RATIO * second.radius for first, second in couples)


def _part(scene: Scene, requirement: Requirement) -> bool:
    wanted = (requirement.b["kind"], requirement.b["color"])
    return any(thing.part == wanted and _like(thing, requirement.a) for thing in scene.things)


def _all_are(scene: Scene, requirement: Requirement) -> bool:
    return 0 < len(scene.things) == _number(scene, requirement.a)


_CHECKS: dict[str, Callable[[Scene, Requirement], bool]] = {
    "has": lambda scene, r: _number(scene, r.a) > 0,
    "count": _count,
    "relation": _relation,
    "touching": _touching,
    "larger": _larger,
    "more_than": lambda scene, r: _number(scene, r.a) > _number(scene, r.b),
    "background": lambda scene, r: scene.background == r.word,
    "part": _part,
    "all_are": _all_are,
}
