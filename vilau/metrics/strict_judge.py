"""The strict judge of generated pictures: a thing counts where the renderer could have drawn it so.

The verifier (`SceneJudge`) was trained to read blurred and noisy pictures and sees a star in what only looks like one.
This judge draws again what it believes to see, and takes nothing that differs too much from its re-drawing
(`vilau.world.parse`). Both stand side by side in every table of drawings: what only the verifier sees is malformed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vilau.metrics.judge import Judgement, asks_for_part, judge_scene
from vilau.world.judge import requirements_from_json
from vilau.world.parse import MAX_RESIDUAL, parse
from vilau.world.scene import Scene


class ReadsScenes(Protocol):
    """A judge."""

    name: str

    def parse(self, images: Tensor) -> list[Scene]:
        """Return the scene each uint8 image ``(B, 3, H, W)`` shows."""
        ...


class StrictJudge:
    """Reads scenes by analysis through synthesis; it has no weights.

    It knows the level ``base`` without noise, reads neither parts nor signs, and misses things that others cover.
    """

    name = f"analysis by synthesis, residual below {MAX_RESIDUAL:g}"

    def parse(self, images: Tensor) -> list[Scene]:
        """Return the scene each uint8 image ``(B, 3, H, W)`` shows, H = W >= 32."""
        return [parse(image) for image in images.permute(0, 2, 3, 1).cpu().numpy()]


@dataclass(frozen=True)
class Verdicts:
    """What both judges say of one picture."""

    lenient: Judgement
    """The verifier's."""
    strict: Judgement
    """That of analysis by synthesis."""

    @property
    def agree(self) -> bool:
        """Whether both say the same of the whole prompt."""
        return self.lenient.exact == self.strict.exact


def verdicts(
    lenient: ReadsScenes, strict: ReadsScenes, images: Tensor, requirements: Sequence[str]
) -> list[Verdicts | None]:
    """Judge uint8 images ``(B, 3, H, W)`` by the requirements (JSON) of their prompts; None where one asks for a part,
    which no judge here can see.

    Raises:
        DataError: a prompt has no requirements.
    """
    seen, redrawn = lenient.parse(images), strict.parse(images)
    return [
        None
        if asks_for_part(requirements_from_json(text))
        else Verdicts(judge_scene(one, text), judge_scene(other, text))
        for one, other, text in zip(seen, redrawn, requirements, strict=True)
    ]
