"""What is said and asked about clips: captions, and questions that have one undoubted answer."""

from __future__ import annotations

import itertools
import random

from vilau.world.clips import DIRECTIONS, GERUNDS, MOTIONS, SPEEDS, Clip, Motion
from vilau.world.families import DIGITS, Question
from vilau.world.things import COLOR_NAMES
from vilau.world.words import a, listing, noun

CLIP_FAMILIES = (
    "motion", "direction", "speed", "speed_compare", "temporal", "event_order", "number", "attribute",
)  # fmt: skip


def clip_caption(clip: Clip, rng: random.Random) -> str:
    """Tell what every thing does, from left to right, and where."""
    order = sorted(range(len(clip.motions)), key=lambda index: clip.scene.things[index].x)
    phrases = []
    for index in order:
        name = a(
            noun(clip.scene.things[index], size=rng.random() < 0.5, texture=rng.random() < 0.5)
        )
        phrases.append(f"{name} {_does(clip.motions[index], clip.num_frames)}")
    return f"{listing(phrases)} on {clip.scene.background}"


def _does(motion: Motion, num_frames: int) -> str:
    if motion.kind == "stay":
        return "stays"
    verb = f"{motion.kind}s"
    if motion.kind == "move":
        manner = "slowly" if motion.speed == "slow" else "fast"
        verb = f"moves {motion.direction} {manner}"
    if motion.start > 0:
        return f"later {verb}"
    return f"first {verb}" if motion.end < num_frames else verb


def clip_questions(clip: Clip, rng: random.Random) -> list[Question]:
    """All questions about the clip that have one undoubted answer."""
    named = named_motions(clip)
    shapes = [thing.shape for thing in clip.scene.things]
    found = []
    for index, name, motion in named:
        found.append(Question("motion", f"what is the {name} doing ?", motion.gerund, MOTIONS))
        if motion.kind == "move":
            text = f"which way does the {name} move ?"
            found.append(Question("direction", text, motion.direction, tuple(DIRECTIONS)))
            text = f"does the {name} move fast or slow ?"
            found.append(Question("speed", text, motion.speed, tuple(SPEEDS)))
        thing = clip.scene.things[index]
        if shapes.count(thing.shape) == 1:
            text = f"what color is the {thing.shape} ?"
            found.append(Question("attribute", text, thing.color, COLOR_NAMES))
    moving = sum(motion.kind == "move" for motion in clip.motions)
    found.append(Question("number", "how many things move ?", str(moving), DIGITS[:4]))
    for pair in itertools.combinations(named, 2):
        found += _comparisons(rng.sample(pair, 2))
    return found + _event_orders(clip, rng)


def _comparisons(pair: list[tuple[int, str, Motion]]) -> list[Question]:
    (_, first, motion1), (_, second, motion2) = pair
    choices, found = (first, second), []
    if "stay" not in (motion1.kind, motion2.kind) and motion1.start != motion2.start:
        text = f"which starts first , the {first} or the {second} ?"
        answer = choices[int(motion2.start < motion1.start)]
        found.append(Question("temporal", text, answer, choices))
    if motion1.kind == motion2.kind == "move" and motion1.speed != motion2.speed:
        text = f"which is faster , the {first} or the {second} ?"
        answer = choices[int(motion2.speed == "fast")]
        found.append(Question("speed_compare", text, answer, choices))
    return found


def _event_orders(clip: Clip, rng: random.Random) -> list[Question]:
    """What happens first, whichever things do it: of events that begin at one moment each, and not at the same."""
    starts: dict[str, set[int]] = {}
    for motion in clip.motions:
        if motion.kind != "stay":
            starts.setdefault(GERUNDS[motion.kind], set()).add(motion.start)
    begins = {event: moments.pop() for event, moments in starts.items() if len(moments) == 1}
    found = []
    for pair in itertools.combinations(begins, 2):
        first, second = rng.sample(pair, 2)
        if begins[first] != begins[second]:
            text = f"which starts first , the {first} or the {second} ?"
            answer = min(first, second, key=begins.__getitem__)
            found.append(Question("event_order", text, answer, (first, second)))
    return found


def repetition_questions(clip: Clip) -> list[Question]:
    """How often things that blink vanish: counts over the frames (TGIF-QA's repetition count)."""
    return [
        Question(
            "repetition",
            f"how many times does the {name} vanish ?",
            str((motion.end - motion.start) // 2),
            DIGITS,
        )
        for _, name, motion in named_motions(clip)
        if motion.kind == "blink"
    ]


def start_questions(clip: Clip) -> list[Question]:
    """When things begin to do what they do, which is what a comparison of two rests on."""
    return [
        Question(
            "start",
            f"when does the {name} start ?",
            "later" if motion.start else "first",
            ("first", "later"),
        )
        for _, name, motion in named_motions(clip)
        if motion.kind != "stay"
    ]


def named_motions(clip: Clip) -> list[tuple[int, str, Motion]]:
    """The things that colour and shape single out, in order: index, name (``red star``) and what they do."""
    names = [noun(thing) for thing in clip.scene.things]
    return [
        (index, name, clip.motions[index])
        for index, name in enumerate(names)
        if names.count(name) == 1
    ]
