"""One document of every form of training data, as types: what is read, what is said, what is drawn.

Images 0 to 9 of ``forms_batch`` stand in them; 2 to 4 and 5 to 6 are the frames of clips.
"""

from tests.models import tiny
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment


def ask(text: str) -> TextSegment:
    return TextSegment(text)


def say(text: str) -> TextSegment:
    return TextSegment(text, target=True)


def look(index: int, *, bare: bool = False) -> ImageSegment:
    return ImageSegment(index, bare=bare)


def draw(index: int) -> ImageSegment:
    return ImageSegment(index, target=True)


FORMS: dict[str, Document] = {
    "image to text": Document((look(0), ask("describe it"), say("a red circle"))),
    "text to image": Document((ask("a blue square"), draw(1))),
    "text to video": Document((ask("two squares"), VideoSegment((2, 3, 4), target=True))),
    "interleaved": Document(
        (say("a red"), look(0), say("circle and"), look(1, bare=True), say("two")), chat=False
    ),
    "text only": Document((say("a green star"),)),
    "web text": Document((say("a green star"),), chat=False),
    "video to text": Document((VideoSegment((5, 6)), ask("how many"), say("two squares"))),
    "chat": Document(
        (look(0), ask("how many"), say("two"), ask("a red"), say("circle"), ask("is it"), say("a"))
    ),
    "several images": Document((look(0), ask("and"), look(1), ask("are"), say("a star"))),
    "few-shot": Document(
        (look(7), ask("is"), ask("red"), look(8), ask("is"), ask("blue"), look(9), ask("is"), say("green"))
    ),
    "read and draw": Document(
        (look(7), ask("how many"), say("two"), ask("a star"), draw(8), ask("is it red"), say("a"))
    ),
    "say and draw": Document((ask("a red circle"), say("two"), draw(9), say("three"))),
    "masked": Document((ask("a star"), draw(1)), masked=True),
}  # fmt: skip


def forms_batch(*names: str) -> MultimodalBatch:
    """The documents of these forms, or of all, and the images they refer to."""
    return MultimodalBatch(tiny.images(10), [FORMS[name] for name in names or FORMS])
