"""Captions of scenes in three manners, the 64 zero-shot classes, and the corpus for a tokenizer."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator

from vilau.world.clip_language import clip_caption, clip_questions
from vilau.world.clip_sampling import sample_clip
from vilau.world.families import region
from vilau.world.prompts import SKILLS, sample_prompt, true_prompt
from vilau.world.questions import questions
from vilau.world.scene import LEVELS, pick, sample_scene, stream_rng
from vilau.world.things import (
    BACKGROUNDS,
    COLOR_NAMES,
    HELD_OUT_COLOR_SHAPE,
    RELATION_MARGIN,
    SHAPES,
    SIZE_NAMES,
    TEXTURES,
    Scene,
    Thing,
    relations,
)
from vilau.world.words import (
    CORNERS,
    INTERACTION_PHRASES,
    NUMBER_WORDS,
    PLURAL,
    a,
    article,
    listing,
    noun,
    relation_phrase,
    unique_things,
)

__all__ = [
    "CLASSES",
    "PLURAL",
    "article",
    "class_held_out",
    "class_texts",
    "dense_caption",
    "facts",
    "noisy_caption",
    "short_caption",
    "true_phrases",
    "vocabulary_corpus",
]

CLASSES = tuple((color, shape) for color in COLOR_NAMES for shape in SHAPES)
"""The 64 zero-shot classes: (colour, shape), colour by colour."""

_DENSE_TEMPLATES = (
    "{things} on {background}",
    "a picture of {things} on {background}",
    "there {are} {things} on {background}",
    "on {background} there {are} {things}",
    "{things} . the background is {background}",
)
_NOISY_TEMPLATES = ("{things}", "a picture of {things}", "an image with {things}", "some {shapes}")


# ------------------------------------------------------------------ captions


def dense_caption(scene: Scene, rng: random.Random, *, places: bool = False) -> str:
    """Tell everything: all things from left to right with all attributes, background, one relation.

    The relation joins two things whose (colour, shape) nothing else in the scene shares; there is
    none if no two such things lie clearly apart. With ``places`` each thing is said to stand ``to the
    top left``, or in another ninth of the canvas, unless it stands on a boundary.
    """
    things = sorted(scene.things, key=lambda thing: (thing.x, thing.y))
    phrases = [a(noun(thing, size=True, texture=True, part=True)) for thing in things]
    if places:
        found = [region(thing, scene.image_size) for thing in things]
        phrases = [
            phrase if place is None else f"{phrase} to the {place}"
            for phrase, place in zip(phrases, found, strict=True)
        ]
    text = pick(rng, _DENSE_TEMPLATES).format(
        things=listing(phrases),
        background=scene.background,
        are="is" if len(things) == 1 else "are",
    )
    sentences = [text, *_relation_sentence(scene, rng), *_other_sentences(scene)]
    return " . ".join(sentences)


def _relation_sentence(scene: Scene, rng: random.Random) -> list[str]:
    margin = RELATION_MARGIN * scene.scale
    couples = list(itertools.permutations(unique_things(scene), 2))
    rng.shuffle(couples)
    for first, second in couples:
        for relation in relations(first, second, margin):
            phrase = relation_phrase(relation, rng)
            return [f"the {noun(first)} is {phrase} the {noun(second)}"]
    return []


def _other_sentences(scene: Scene) -> list[str]:
    sentences = []
    if scene.interaction is not None:
        kind, i, j = scene.interaction
        first, second = noun(scene.things[i]), noun(scene.things[j])
        sentences.append(f"{a(first)} is {INTERACTION_PHRASES[kind]} {a(second)}")
    if scene.sign is not None:
        sentences.append(f"the sign says {scene.sign}")
    return sentences


def noisy_caption(scene: Scene, rng: random.Random) -> str:
    """A careless caption, as the web has them: true, but things and attributes are left out.

    Each thing is dropped with probability 0.3 (one always stays), its size with 0.4, its texture
    with 0.3, its colour with 0.1, the background with 0.4, a sign with 0.3. Equal phrases are
    counted ("two red stars") where the number is the whole truth.
    """
    kept = [thing for thing in scene.things if rng.random() >= 0.3] or [pick(rng, scene.things)]
    rng.shuffle(kept)
    phrases = dict.fromkeys(_careless(thing, scene, rng) for thing in kept)
    template = pick(rng, _NOISY_TEMPLATES)
    text = template.format(things=listing(list(phrases)), shapes=PLURAL[kept[0].shape])
    if template.startswith("some") and Counter(t.shape for t in scene.things)[kept[0].shape] < 2:
        text = listing(list(phrases))
    if rng.random() >= 0.4:
        text += f" on {scene.background}"
    if scene.sign is not None and rng.random() >= 0.3:
        text += f" . the sign says {scene.sign}"
    return text


def _careless(thing: Thing, scene: Scene, rng: random.Random) -> str:
    alike = sum((t.color, t.shape) == (thing.color, thing.shape) for t in scene.things)
    if alike > 1 and rng.random() < 0.5:
        return f"{NUMBER_WORDS[alike]} {thing.color} {PLURAL[thing.shape]}"
    return a(
        noun(
            thing,
            size=rng.random() >= 0.4,
            texture=rng.random() >= 0.3,
            color=rng.random() >= 0.1,
            part=rng.random() >= 0.3,
        )
    )


def short_caption(
    scene: Scene, rng: random.Random, *, shape_share: float, color_share: float
) -> str:
    """Name one thing: ``a star`` with probability ``shape_share``, ``a red thing`` with
    ``color_share``, else ``a [size] [texture] red star``, where size and texture are said with
    probability 1/4 each. Solid texture is never spoken of.
    """
    thing = pick(rng, scene.things)
    draw = rng.random()
    if draw < shape_share:
        return a(thing.shape)
    if draw < shape_share + color_share:
        return a(f"{thing.color} thing")
    return a(noun(thing, size=rng.random() < 0.25, texture=rng.random() < 0.25))


def true_phrases(scene: Scene) -> frozenset[str]:
    """Every text that ``short_caption`` can give, of any scene, and that is true of this one.

    So ``short_caption(other, ...) in true_phrases(scene)`` says whether it is true of ``scene``.
    """
    phrases = set()
    for thing in scene.things:
        phrases |= {a(thing.shape), a(f"{thing.color} thing")}
        for size, texture in itertools.product((False, True), repeat=2):
            phrases.add(a(noun(thing, size=size, texture=texture)))
    return frozenset(phrases)


# ------------------------------------------------------------------ zero-shot classes


def class_texts() -> list[list[str]]:
    """For each of CLASSES the phrases whose mean is its text feature (64 lists of 13)."""
    return [
        [a(f"{color} {shape}")]
        + [a(f"{word} {color} {shape}") for word in SIZE_NAMES + TEXTURES[1:]]
        + [f"{a(f'{color} {shape}')} on {background}" for background in BACKGROUNDS]
        for color, shape in CLASSES
    ]


def class_held_out() -> list[bool]:
    """For each of CLASSES whether no training scene shows it (8 of 64)."""
    return [pair in HELD_OUT_COLOR_SHAPE for pair in CLASSES]


# ------------------------------------------------------------------ text alone


def facts() -> list[str]:
    """What only text tells: how many corners the shapes have."""
    found = []
    for shape, corners in CORNERS.items():
        found += [f"{a(shape)} has {corners} corners", f"{PLURAL[shape]} have {corners} corners"]
    return found


def vocabulary_corpus(num: int, seed: int = 0) -> Iterator[str]:
    """Yield ``num`` texts in which every kind of sentence of the drawn world occurs, of all levels.

    For training a tokenizer: captions, questions with their choices and answers, prompts, clips.
    """
    return itertools.islice(_endless_corpus(seed), num)


def _endless_corpus(seed: int) -> Iterator[str]:
    yield from facts()
    yield from itertools.chain.from_iterable(class_texts())
    for index in itertools.count():
        rng = stream_rng("corpus", seed, index)
        level = pick(rng, list(LEVELS.values()))
        scene = sample_scene(rng, level)
        yield dense_caption(scene, rng)
        yield noisy_caption(scene, rng)
        yield short_caption(scene, rng, shape_share=0.2, color_share=0.2)
        yield true_prompt(scene, rng)
        yield sample_prompt(rng, pick(rng, SKILLS), level).text
        asked = questions(scene, rng, level=level)
        for question in rng.sample(asked, min(3, len(asked))):
            yield f"{question.question} {question.answer}"
            yield " , ".join(question.choices)
        clip = sample_clip(rng, level)
        yield clip_caption(clip, rng)
        motion = pick(rng, clip_questions(clip, rng))
        yield f"{motion.question} {motion.answer}"
