"""Questions that want several elements in one answer, tagged with what they take: the twin of MM-Vet."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vilau.world.scene import pick
from vilau.world.things import Scene
from vilau.world.words import CORNERS


@dataclass(frozen=True)
class OpenQuestion:
    """A question and the elements of its answer."""

    kind: str
    text: str
    elements: tuple[str, ...]
    capability: str
    """MM-Vet's abbreviations of what it takes, by commas."""

    @property
    def spoken(self) -> str:
        """The full answer in words."""
        return " and ".join(self.elements)


def open_question(scene: Scene, rng: random.Random) -> OpenQuestion:
    """Ask about the whole of a scene, which has things; about its sign only where it has one."""
    kinds = ("things", "corners", "places", "sum", *(("sign",) if scene.sign else ()))
    names = list(dict.fromkeys(f"{thing.color} {thing.shape}" for thing in scene.things))
    kind = pick(rng, kinds)
    if kind == "sign":
        text = "what is in the picture , and what does the sign say ?"
        return OpenQuestion(kind, text, (*names, str(scene.sign)), "rec,ocr")
    if kind == "corners":
        thing = pick(rng, scene.things)
        text = "name the colors in the picture and the corners of their things ."
        words = [w for t in scene.things for w in (t.color, str(CORNERS[t.shape]))]
        elements = tuple(dict.fromkeys([*words, thing.color]))
        return OpenQuestion(kind, text, elements, "rec,know")
    if kind == "places":
        text = "what is in the picture , and on what background ?"
        return OpenQuestion(kind, text, (*names, scene.background), "rec,spat")
    if kind == "sum":
        text = "what is in the picture , and how many things in all ?"
        return OpenQuestion(kind, text, (*names, str(len(scene.things))), "rec,math")
    return OpenQuestion(kind, "what is in the picture ?", tuple(names), "rec,gen")
