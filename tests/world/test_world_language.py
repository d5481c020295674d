"""Captions are true, told by checkers that read the text alone and share no code with the makers."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from vilau.world.language import (
    CLASSES,
    class_held_out,
    class_texts,
    dense_caption,
    facts,
    noisy_caption,
    short_caption,
    true_phrases,
    vocabulary_corpus,
)
from vilau.world.scene import LEVELS, Scene, Thing, scene_at
from vilau.world.words import PLURAL, article, listing

NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
SINGULAR = {plural: shape for shape, plural in PLURAL.items()}
CHECKERS = {
    "left of": lambda dx, dy: dx < -4 and abs(dx) > abs(dy),
    "right of": lambda dx, dy: dx > 4 and abs(dx) > abs(dy),
    "above": lambda dx, dy: dy < -4 and abs(dy) >= abs(dx),
    "below": lambda dx, dy: dy > 4 and abs(dy) >= abs(dx),
}
SYNONYMS = {
    "to the left of": "left of",
    "to the right of": "right of",
    "over": "above",
    "under": "below",
}


def fits(phrase: str, thing: Thing) -> bool:
    """Whether a phrase such as "a small striped red star with a blue dot" describes the thing."""
    phrase, _, part = phrase.partition(" with ")
    if part and (thing.part is None or part.split()[1:] != [thing.part[1], thing.part[0]]):
        return False
    first, *words, noun = phrase.split(" ")
    assert first in ("a", "an", "the"), phrase
    assert first == "the" or (first == "an") == ((words + [noun])[0][0] in "aeiou"), phrase
    known = {thing.size, thing.texture, thing.color}
    return noun in (thing.shape, "thing") and all(word in known for word in words)


def holds(phrase: str, scene: Scene) -> bool:
    """Whether a list member of a caption is true of the scene."""
    number, *words = phrase.split(" ")
    if number in NUMBERS:
        shape = SINGULAR[words[-1]]
        alike = [t for t in scene.things if t.shape == shape and t.color in (words[0], t.color)]
        return sum(t.color == words[0] for t in alike) == NUMBERS[number]
    return any(fits(phrase, thing) for thing in scene.things)


def members(text: str) -> list[str]:
    return re.split(r" , | and ", text)


def scenes(num: int = 250) -> list[Scene]:
    return [
        scene_at("val", index, level=level, image_size=64, held_out="any")
        for level in LEVELS
        for index in range(num)
    ]


def test_dense_captions_tell_everything_from_left_to_right_and_truly() -> None:
    stated = Counter()
    for number, scene in enumerate(scenes()):
        caption = dense_caption(scene, random.Random(number))
        sentences = caption.split(" . ")
        if sentences[1:2] == [f"the background is {scene.background}"]:
            body = sentences.pop(1) and sentences[0]
        else:
            body = sentences[0].removeprefix("a picture of ").removeprefix("there is ")
            body = body.removeprefix("there are ").removesuffix(f" on {scene.background}")
            opening = rf"on {scene.background} there (is|are) "
            body, replaced = re.subn(opening, "", body)
            assert sentences[0].endswith(f" on {scene.background}") != bool(replaced)
        phrases = members(body)
        ordered = sorted(scene.things, key=lambda t: (t.x, t.y))
        assert len(phrases) == len(ordered)
        for phrase, thing in zip(phrases, ordered, strict=True):
            assert fits(phrase, thing)
            assert thing.size in phrase.split()
            assert thing.texture == "solid" or thing.texture in phrase.split()
            assert thing.part is None or phrase.endswith(f"{thing.part[1]} {thing.part[0]}")
        _check_rest(scene, sentences[1:], stated)
    assert stated["relation"] > 400
    assert stated["touching"] > 3
    assert stated["sign"] > 40


def test_placed_captions_say_where_each_thing_stands() -> None:
    """The same caption with the ninth of the canvas behind each thing; where two ninths meet none is named."""
    unsaid = 0
    said: Counter[str] = Counter()
    for number, scene in enumerate(scenes()):
        plain = dense_caption(scene, random.Random(number))
        caption = dense_caption(scene, random.Random(number), places=True)
        place = r" to the ((?:top|middle|bottom) (?:left|center|right))"
        assert re.sub(place, "", caption) == plain
        found = iter(re.findall(place, caption))
        for thing in sorted(scene.things, key=lambda t: (t.x, t.y)):
            third = scene.image_size / 3
            near = min(abs(v + 0.5 - e * third) for v in (thing.x, thing.y) for e in (1, 2))
            if near < scene.image_size / 32:
                unsaid += 1
                continue
            row = "top" if thing.y < third else "middle" if thing.y < 2 * third else "bottom"
            column = "left" if thing.x < third else "center" if thing.x < 2 * third else "right"
            said[where := next(found)] += 1
            assert where == f"{row} {column}"
        assert next(found, None) is None
    assert len(said) == 9
    assert unsaid > 100


def _check_rest(scene: Scene, sentences: list[str], stated: Counter[str]) -> None:
    pairs = Counter((t.color, t.shape) for t in scene.things)
    expected = int(scene.sign is not None) + int(scene.interaction is not None)
    assert expected <= len(sentences) <= expected + 1
    for sentence in sentences:
        if sentence.startswith("the sign says "):
            stated["sign"] += 1
            assert sentence == f"the sign says {scene.sign}"
        elif sentence.startswith("the "):
            stated["relation"] += 1
            match = re.fullmatch(r"the (\w+) (\w+) is (.+) the (\w+) (\w+)", sentence)
            assert match is not None
            color1, shape1, words, color2, shape2 = match.groups()
            assert pairs[color1, shape1] == pairs[color2, shape2] == 1
            a = next(t for t in scene.things if (t.color, t.shape) == (color1, shape1))
            b = next(t for t in scene.things if (t.color, t.shape) == (color2, shape2))
            assert CHECKERS[SYNONYMS.get(words, words)](a.x - b.x, a.y - b.y)
        else:
            assert scene.interaction is not None
            kind, i, j = scene.interaction
            stated[kind] += 1
            words = {"touching": "touching", "covering": "covering part of", "inside": "inside"}
            first, second = sentence.split(f" is {words[kind]} ")
            assert fits(first, scene.things[i])
            assert fits(second, scene.things[j])


def test_noisy_captions_are_true_but_leave_things_out() -> None:
    dropped = colorless = counted = 0
    for number, scene in enumerate(scenes()):
        caption, *rest = noisy_caption(scene, random.Random(number)).split(" . ")
        assert rest in ([], [f"the sign says {scene.sign}"])
        caption = caption.removesuffix(f" on {scene.background}")
        if caption.startswith("some "):
            shape = SINGULAR[caption.split()[1]]
            assert sum(t.shape == shape for t in scene.things) > 1
            continue
        for start in ("a picture of ", "an image with "):
            caption = caption.removeprefix(start)
        phrases = members(caption)
        assert all(holds(phrase, scene) for phrase in phrases), caption
        dropped += len(phrases) < len(scene.things)
        colorless += any(not {t.color for t in scene.things} & set(p.split()) for p in phrases)
        counted += any(phrase.split()[0] in NUMBERS for phrase in phrases)
    assert dropped > 200
    assert colorless > 50
    assert counted > 5


def test_short_captions_keep_their_shares() -> None:
    rng = random.Random(0)
    kinds = Counter()
    for scene in scenes(500):
        words = short_caption(scene, rng, shape_share=0.5, color_share=0.2).split()
        kind = "shape" if len(words) == 2 else "color" if words[-1] == "thing" else "pair"
        kinds[kind] += 1
    assert kinds["shape"] / 2000 == pytest.approx(0.5, abs=0.04)
    assert kinds["color"] / 2000 == pytest.approx(0.2, abs=0.04)


def test_true_phrases_tell_exactly_which_short_captions_are_true() -> None:
    rng = random.Random(1)
    some = scenes(40)
    texts = sorted(
        {
            short_caption(scene, rng, shape_share=0.2, color_share=0.2)
            for scene in some
            for _ in range(8)
        }
    )
    true = 0
    for scene in some:
        phrases = true_phrases(scene)
        for text in texts:
            truth = any(fits(text, thing) for thing in scene.things)
            assert (text in phrases) == truth, (text, scene)
            true += truth
    assert true > 500


def test_classes_and_their_texts() -> None:
    texts, hidden = class_texts(), class_held_out()
    assert len(CLASSES) == len(set(CLASSES)) == len(texts) == len(hidden) == 64
    assert sum(hidden) == 8
    assert {len(group) for group in texts} == {13}
    for (color, shape), group in zip(CLASSES, texts, strict=True):
        assert len(set(group)) == 13
        assert all({color, shape} <= set(text.split()) for text in group)
        assert group[0] == f"{article(color)} {color} {shape}"


def test_texts_are_lower_case_words_with_single_spaces() -> None:
    words: Counter[str] = Counter()
    for text in vocabulary_corpus(6000, seed=3):
        assert re.fullmatch(r"[a-z0-9,.?]+( [a-z0-9,.?]+)*", text), text
        for word in text.split(" "):
            assert re.fullmatch(r"[a-z]+|[0-9]+|[,.?]", word), text
            words[word] += 1
    assert 150 < len(words) < 600
    for scene in scenes(30):
        rng = random.Random(scene.seed)
        for text in (dense_caption(scene, rng), noisy_caption(scene, rng)):
            assert set(text.split(" ")) <= set(words), text


def test_the_corpus_is_deterministic_and_as_long_as_asked() -> None:
    first = list(vocabulary_corpus(1500, seed=1))
    assert len(first) == 1500
    assert first == list(vocabulary_corpus(1500, seed=1))
    assert first != list(vocabulary_corpus(1500, seed=2))
    assert set(facts()) <= set(first)


def test_articles_and_lists() -> None:
    assert article("orange star") == "an"
    assert article("red star") == "a"
    assert listing(["x"]) == "x"
    assert listing(["x", "y"]) == "x and y"
    assert listing(["x", "y", "z"]) == "x , y and z"
