from dataclasses import replace

import pytest

from vilau.metrics.scene_scores import scene_scores
from vilau.world.scene import Scene
from vilau.world.things import Thing


def scene(*kinds: tuple[str, str]) -> Scene:
    things = [Thing(shape, color, "large", "solid", 20.0, 20.0, 8.0) for shape, color in kinds]
    return Scene(tuple(things), "grey", 64)


STAR, RING, MOON = ("star", "red"), ("ring", "blue"), ("moon", "red")


@pytest.mark.parametrize(
    ("told", "shown", "exact", "recalled", "count_right"),
    [
        ([STAR, RING], [RING, STAR], True, [1, 1], True),
        ([STAR, RING], [STAR, MOON], False, [1, 0], True),
        ([STAR, RING], [STAR, RING, MOON], False, [1, 1], False),
        ([STAR, STAR], [STAR], False, [1, 0], False),
        ([STAR], [], False, [0], False),
    ],
)
def test_things_are_told_apart_by_shape_and_colour(told, shown, exact, recalled, count_right):
    found = replace(scene(*shown), background="black")  # not a matter of things
    scores = scene_scores(found, scene(*told).to_json())
    assert (scores.exact, scores.recalled, scores.count_right) == (exact, recalled, count_right)
