"""Questions: every answer found again by a reader of the text, balance, POPE, the blind baseline."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict

import pytest

from vilau.errors import ConfigError
from vilau.world.questions import (
    FAMILIES,
    POPE_MODES,
    BlindBaseline,
    PairStatistics,
    Question,
    all_answers,
    blind_answers,
    pope_questions,
    questions,
    sample_questions,
)
from vilau.world.scene import COLOR_NAMES, LEVELS, SHAPES, Scene, Thing, scene_at
from vilau.world.words import PLURAL

SINGULAR = {plural: shape for shape, plural in PLURAL.items()} | {"things": "thing"}
ORDER = ["small", "medium", "large"]
CORNERS = {"circle": 0, "ring": 0, "moon": 2, "triangle": 3, "square": 4, "diamond": 4}
CORNERS |= {"star": 10, "cross": 12}


def scenes(level: str, num: int, split: str = "test") -> list[Scene]:
    return [scene_at(split, index, level=level) for index in range(num)]


def those(scene: Scene, words: str) -> list[Thing]:
    *looks, noun = words.split(" ")
    return [
        thing
        for thing in scene.things
        if noun in ("thing", thing.shape) and all(look == thing.color for look in looks)
    ]


def the(scene: Scene, words: str) -> Thing:
    (thing,) = those(scene, words)  # a reference that fits two things fails here
    return thing


def direction(a: Thing, b: Thing) -> str:
    dx, dy = a.x - b.x, a.y - b.y
    assert max(abs(dx), abs(dy)) > 4
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def place(thing: Thing, size: int) -> str:
    words = []
    for value, names in ((thing.y, "top middle bottom"), (thing.x, "left center right")):
        centre = value + 0.5
        assert min(abs(centre - size / 3), abs(centre - 2 * size / 3)) >= 2.0 * size / 64 - 1e-6
        words.append(names.split()[min(2, math.floor(3 * centre / size))])
    return " ".join(words)


def on_side(scene: Scene, where: str, anchor: Thing) -> Thing:
    sign = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}[where]
    found = [
        thing
        for thing in scene.things
        if sign[0] * (thing.x - anchor.x) + sign[1] * (thing.y - anchor.y) > 0
    ]
    assert len(found) == 1
    assert direction(found[0], anchor) == where
    return found[0]


DIRECTION = "(left of|right of|above|below)"
READERS = {
    r"what color is the thing D the (.+) \?": lambda s, d, w: on_side(s, d, the(s, w)).color,
    r"what shape is the thing D the (.+) \?": lambda s, d, w: on_side(s, d, the(s, w)).shape,
    r"what color is the (border|dot) of the (.+) \?": lambda s, k, w: dict([the(s, w).part])[k],
    r"what color is the (.+) \?": lambda s, w: the(s, w).color,
    r"what size is the (.+) \?": lambda s, w: the(s, w).size,
    r"is the (.+) solid , striped , dotted or checked \?": lambda s, w: the(s, w).texture,
    r"what shape is the (.+) \?": lambda s, w: the(s, w).shape,
    r"how many corners does the (.+) have \?": lambda s, w: str(CORNERS[the(s, w).shape]),
    r"where is the (.+) \?": lambda s, w: place(the(s, w), s.image_size),
    r"how many ((?:\w+ )?)(\w+) are there \?": lambda s, c, n: str(
        len(those(s, f"{c}{SINGULAR[n]}"))
    ),
    r"is there an? (.+?)(?: in the image)? \?": lambda s, w: yes(bool(those(s, w))),
    r"is the (.+) larger than the (.+) \?": lambda s, v, w: yes(larger(the(s, v), the(s, w))),
    r"is the (.+) touching , covering or inside the (.+) \?": lambda s, v, w: act(s, v, w),
    r"is the (.+) D the (.+) \?": lambda s, v, d, w: yes(direction(the(s, v), the(s, w)) == d),
    r"are the (.+) and the (.+) the same (color|size) \?": lambda s, v, w, k: yes(
        getattr(the(s, v), k) == getattr(the(s, w), k)
    ),
    r"are there more (.+) than (.+) \?": lambda s, v, w: yes(
        len(those(s, SINGULAR[v])) > len(those(s, SINGULAR[w]))
    ),
    r"what is the background \?": lambda s: s.background,
    r"what does the sign say \?": lambda s: s.sign,
}


def yes(value: bool) -> str:
    return "yes" if value else "no"


def larger(a: Thing, b: Thing) -> bool:
    assert a.size != b.size
    return ORDER.index(a.size) > ORDER.index(b.size)


def act(scene: Scene, first: str, second: str) -> str:
    kind, i, j = scene.interaction  # type: ignore[misc]
    assert (the(scene, first), the(scene, second)) == (scene.things[i], scene.things[j])
    return kind


def read(scene: Scene, text: str) -> str:
    for pattern, answer in READERS.items():
        match = re.fullmatch(pattern.replace("D", DIRECTION), text)
        if match:
            return answer(scene, *match.groups())  # type: ignore[operator]
    raise AssertionError(f"nobody understands {text!r}")


@pytest.mark.parametrize("level", list(LEVELS))
def test_every_answer_is_true_and_among_its_choices(level: str) -> None:
    known = set(all_answers())
    families = set()
    for number, scene in enumerate(scenes(level, 250)):
        asked = questions(scene, random.Random(number), level=LEVELS[level])
        assert len({question.question for question in asked}) == len(asked)
        for question in asked:
            assert read(scene, question.question) == question.answer, (scene, question)
            assert question.answer in question.choices
            assert set(question.choices) <= known
            families.add(question.family)
    missing = {"text", "action"} if level != "hard" else set()
    assert families == set(FAMILIES) - missing


@pytest.mark.parametrize("level", list(LEVELS))
def test_yes_and_no_are_balanced_in_every_family(level: str) -> None:
    listed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    drawn: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number, scene in enumerate(scenes(level, 1200)):
        rng = random.Random(number)
        for question in questions(scene, rng, level=LEVELS[level]):
            if question.choices == ("yes", "no"):
                listed[question.family][question.answer] += 1
        for question in sample_questions(scene, rng, 3, level=LEVELS[level]):
            if question.choices == ("yes", "no"):
                drawn[question.family][question.answer] += 1
    assert set(listed) == {"exist", "relation", "compare"}
    for counts in (listed, drawn):
        for family, answers in counts.items():
            # Within four standard errors of one half.
            excess = abs(answers["yes"] - answers["no"])
            assert excess < 4.0 * math.sqrt(answers.total()), (family, answers)


def test_sampled_questions_differ_and_cover_the_families_evenly() -> None:
    families: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for number, scene in enumerate(scenes("base", 800)):
        rng = random.Random(number)
        asked = sample_questions(scene, rng, 4)
        assert len({question.question for question in asked}) == len(asked) == 4
        families.update(question.family for question in asked)
        counts.update(question.answer for question in asked if question.family == "count")
        available = questions(scene, random.Random(0))
        everything = sample_questions(scene, random.Random(0), 10_000)
        assert sorted(q.question for q in everything) == sorted(q.question for q in available)
    # Always askable: attribute (nearly), count, exist, scene. None of them may crowd out the rest.
    assert min(families[family] for family in ("count", "exist", "scene")) > 250
    assert max(families.values()) < 700
    assert counts["1"] < 0.5 * counts.total()


def test_the_same_generator_gives_the_same_questions() -> None:
    scene = scene_at("test", 3, level="hard")
    first = sample_questions(scene, random.Random(5), 6)
    assert first == sample_questions(scene, random.Random(5), 6)
    assert first != sample_questions(scene, random.Random(6), 6)


# ------------------------------------------------------------------ POPE


@pytest.fixture(scope="module")
def statistics() -> PairStatistics:
    return PairStatistics.gather(scenes("skew", 2500, "train"))


def test_pair_statistics_count_scenes() -> None:
    def one(shape: str, x: float) -> Thing:
        return Thing(shape, "red", "small", "solid", x, 20.0, 4.0)

    both = Scene((one("star", 20.0), one("ring", 40.0), one("ring", 55.0)), "black", 64)
    alone = Scene((one("star", 20.0),), "black", 64)
    counted = PairStatistics.gather([both, alone])
    assert counted.frequency[("red", "star")] == 2
    assert counted.frequency[("red", "ring")] == 1
    assert counted.company(("red", "ring"), [("red", "star")]) == 1
    assert counted.company(("red", "moon"), [("red", "star")]) == 0


@pytest.mark.parametrize("mode", POPE_MODES)
def test_pope_is_balanced_and_true(mode: str, statistics: PairStatistics) -> None:
    answers: Counter[str] = Counter()
    for number, scene in enumerate(scenes("skew", 300)):
        asked = pope_questions(scene, random.Random(number), mode, statistics)
        present = {(thing.color, thing.shape) for thing in scene.things}
        assert len(asked) == 2 * min(3, len(present))
        assert len({question.question for question in asked}) == len(asked)
        for question in asked:
            assert question.question.endswith(" in the image ?")
            assert read(scene, question.question) == question.answer
        answers.update(question.answer for question in asked)
    assert answers["yes"] == answers["no"]


def test_a_guesser_that_trusts_the_prior_is_misled(statistics: PairStatistics) -> None:
    aucs = {}
    for mode in POPE_MODES:
        scores: dict[str, list[int]] = {"yes": [], "no": []}
        for number, scene in enumerate(scenes("skew", 400)):
            for question in pope_questions(scene, random.Random(number), mode, statistics):
                pair = re.search(r"(\w+) (\w+) in the image", question.question)
                assert pair is not None
                scores[question.answer].append(statistics.frequency[pair.groups()])  # type: ignore[index]
        wins = sum((a > b) + 0.5 * (a == b) for a in scores["yes"] for b in scores["no"])
        aucs[mode] = wins / (len(scores["yes"]) * len(scores["no"]))
    assert aucs["random"] > 0.65
    assert aucs["popular"] < 0.3
    assert aucs["adversarial"] < 0.45


def test_an_unknown_pope_mode_is_named(statistics: PairStatistics) -> None:
    with pytest.raises(ConfigError, match="mode is 'hard'; write one of random, popular, adver"):
        pope_questions(scene_at("test", 0), random.Random(0), "hard", statistics)


# ------------------------------------------------------------------ blind


def test_the_blind_baseline_answers_by_text_then_by_family() -> None:
    def ask(family: str, text: str, answer: str) -> Question:
        return Question(family, text, answer, (answer,))

    seen = [ask("count", "how many ?", "2")] * 2 + [ask("count", "how many ?", "1")]
    seen += [ask("count", "how much ?", "1")] * 2
    blind = BlindBaseline(seen)
    assert blind.answer(ask("count", "how many ?", "")) == "2"
    assert blind.answer(ask("count", "how come ?", "")) == "1"
    assert blind.answer(ask("scene", "what is the background ?", "")) == ""
    assert blind.answer_text("how much ?") == "1"
    assert blind_answers(seen) == {"how many ?": "2", "how much ?": "1"}


def test_looking_is_needed_on_base() -> None:
    train = [
        q
        for s in scenes("base", 2500, "train")
        for q in sample_questions(s, random.Random(s.seed), 3)
    ]
    test = [q for s in scenes("base", 500) for q in sample_questions(s, random.Random(s.seed), 3)]
    blind = BlindBaseline(train)
    right = sum(blind.answer(question) == question.answer for question in test) / len(test)
    chance = sum(1.0 / len(question.choices) for question in test) / len(test)
    assert chance < right + 0.02
    assert right < 0.4


def test_the_closed_answer_list() -> None:
    answers = all_answers()
    assert list(answers) == sorted(set(answers))
    assert {"yes", "no", "top left", "10", *COLOR_NAMES, *SHAPES} <= set(answers)
    assert len(answers) < 100
