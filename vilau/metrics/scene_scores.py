"""How far a drawing shows the scene its prompt told, thing by thing."""

from collections import Counter
from dataclasses import dataclass

from vilau.world.scene import Scene


@dataclass(frozen=True)
class SceneScores:
    """What of a told scene is in a picture; things are told apart by shape and colour."""

    exact: bool
    """The same things, each as often."""
    recalled: list[float]
    """For each thing that was told, 1 where the picture shows it, else 0; nothing shown counts twice."""
    count_right: bool
    """As many things as were told."""


def scene_scores(found: Scene, truth_json: str) -> SceneScores:
    """Compare the scene a judge found in a picture with the one that was told (``Scene.to_json``).

    Raises ``DataError`` for a text that is no scene.
    """
    told, shown = _kinds(Scene.from_json(truth_json)), _kinds(found)
    there = (told & shown).total()
    return SceneScores(
        exact=told == shown,
        recalled=[1.0] * there + [0.0] * (told.total() - there),
        count_right=told.total() == shown.total(),
    )


def _kinds(scene: Scene) -> Counter[tuple[str, str]]:
    return Counter((thing.shape, thing.color) for thing in scene.things)
