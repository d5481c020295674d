"""The drawn world's twins of published benchmarks: question sets, their guessers, and the data module."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vilau.data.media.video import frame_indices
from vilau.data.names import nearest
from vilau.data.pairs import stack_images
from vilau.data.twins.options import ask_mmbench, ask_scienceqa, ask_seedbench, rank_seedbench
from vilau.data.twins.questions import (
    Ask,
    Asked,
    Place,
    ask_gqa,
    ask_mme,
    ask_mmvet,
    ask_okvqa,
    ask_textvqa,
    ask_vizwiz,
    ask_vqav2,
    pope_asker,
    video_asker,
)
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.types import QuestionBatch
from vilau.world.clip_language import CLIP_FAMILIES
from vilau.world.clips import Clip, render_clip
from vilau.world.families import Question
from vilau.world.render import render
from vilau.world.scene import pick, stream_rng
from vilau.world.snapshots import Snapshot

NUM_PRIOR_SCENES = 1000
"""Training scenes from which frequencies and blind answers are counted."""
NUM_GUESSERS = 16
"""How many draw an answer to each question at random: their mean is chance, to a quarter of one guesser's deviation."""
MAX_BARREN = 400
"""So many scenes in a row without a question of the kind whose turn it is: the level has none."""


@dataclass(frozen=True)
class Twin:
    """One twin: how it asks, and the level it needs where that is not the model's own."""

    stands_for: str
    """The published benchmark's name."""
    ask: Callable[[Place, int], Ask]
    """Takes the place and how many training scenes may be counted."""
    level: str | None = None
    video: bool = False


def _fixed(ask: Ask) -> Callable[[Place, int], Ask]:
    return lambda place, num_prior: ask


def _video(name: str, *families: str, **settings: int | tuple[int, int]) -> Twin:
    ask = video_asker(name, families, **settings)  # type: ignore[arg-type]
    return Twin(name, _fixed(ask), video=True)


TWINS: dict[str, Twin] = {
    "world_vqav2": Twin("vqav2", _fixed(ask_vqav2)),
    "world_gqa": Twin("gqa", _fixed(ask_gqa)),
    "world_textvqa": Twin("textvqa", _fixed(ask_textvqa), level="hard"),
    "world_pope": Twin("pope", pope_asker, level="skew"),
    "world_mme": Twin("mme", _fixed(ask_mme)),
    "world_seedbench": Twin("seedbench", _fixed(ask_seedbench), video=True),
    "world_seedbench_ranked": Twin("seedbench_ranked", _fixed(rank_seedbench), video=True),
    "world_mmvet": Twin("mmvet", _fixed(ask_mmvet)),
    "world_mmbench": Twin("mmbench", _fixed(ask_mmbench)),
    "world_scienceqa": Twin("scienceqa_img", _fixed(ask_scienceqa)),
    "world_ok_vqa": Twin("ok_vqa", _fixed(ask_okvqa)),
    "world_vizwiz_vqa": Twin("vizwiz_vqa", _fixed(ask_vizwiz)),
    "world_msvd_qa": _video("msvd_qa", "motion", "direction", "attribute", num_objects=(1, 1)),
    "world_msrvtt_qa": _video(
        "msrvtt_qa", "motion", "direction", "speed", "temporal", "event_order", "number"
    ),
    "world_tgif_qa": _video("tgif_qa", "attribute", "motion", "repetition"),
    "world_activitynetqa": _video("activitynetqa", *CLIP_FAMILIES, "repetition", num_frames=16),
}
"""Twins by name; each is scored as ``vilau.metrics.answers`` says for the name."""


class Prior:
    """What the blind guess: how often each answer was right in training, by question text and by family."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self.by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.by_family: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for question in questions:
            self.by_text[question.question][question.answer] += 1
            self.by_family[question.family][question.answer] += 1

    def guess(self, question: Question) -> str:
        """The answer most often right, among the options if there are any; of equals the first word."""
        text, family = self.by_text[question.question], self.by_family[question.family]
        words = question.choices or tuple({**text, **family}) or ("",)
        return min(words, key=lambda word: (-text[word], -family[word], word))


@dataclass(frozen=True)
class TwinSet:
    """The questions of a twin with what its guessers say; builds batches."""

    benchmark: str
    asked: list[Asked]
    baselines: dict[str, list[list[str]]]
    image_size: int
    num_frames: int

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def has_clips(self) -> bool:
        """Whether any question is about a clip."""
        return any(isinstance(one.shown, Clip) for one in self.asked)

    def pictures(self, index: int) -> np.ndarray:
        """Draw what question ``index`` is about: uint8 ``(F, H, W, 3)``, F is 1 for a picture."""
        shown = self.asked[index].shown
        if isinstance(shown, Snapshot):
            return shown.pixels[None]
        if not isinstance(shown, Clip):
            return render(shown)[None]
        return render_clip(shown)[frame_indices(shown.num_frames, self.num_frames)]

    def __call__(self, epoch: int, indices: np.ndarray) -> QuestionBatch:
        """Return the batch of the questions at ``indices`` ``(B,)``."""
        drawn = [self.pictures(index) for index in indices]
        asked = [self.asked[index] for index in indices]
        return QuestionBatch(
            images=stack_images(
                [image for one in drawn for image in one], image_size=self.image_size
            ),
            questions=[one.prompt for one in asked],
            answers=[list(one.accepted) for one in asked],
            families=[one.question.family for one in asked],
            benchmark=self.benchmark,
            rows=[one.row for one in asked],
            baselines={
                name: [said[index] for index in indices] for name, said in self.baselines.items()
            },
            # Told of all or none of the set: its hash must not depend on which questions share a batch.
            frames=[len(one) for one in drawn] if self.has_clips else [],
            options=[list(one.options) for one in asked] if asked[0].options else [],
        )


def twin_set(
    benchmark: str,
    world: WorldSpec,
    num: int,
    *,
    image_size: int,
    num_frames: int = 8,
    num_prior: int = NUM_PRIOR_SCENES,
    seed: int = 0,
) -> TwinSet:
    """Ask at least ``num`` questions over the test split; those that belong together stay together.

    ``num_prior`` training scenes tell what is popular and what the blind answer.

    Raises:
        ConfigError: the benchmark is unknown, or the world's level has no such questions.
    """
    if benchmark not in TWINS:
        raise ConfigError(f"There is no twin '{benchmark}'. {nearest(benchmark, TWINS)}")
    twin = TWINS[benchmark]
    place = Place(replace(world, level=twin.level or world.level), "test", image_size, seed)
    num_prior = min(num_prior, world.num_train)
    ask = twin.ask(place, num_prior)
    asked = _collect(benchmark, ask, place, num)
    seen, taught = replace(place, split="train"), list[Question]()
    for index in range(num_prior):
        # With each scene the next kind has its turn, or a rare one would hold up the others.
        taught += [one.question for one in ask(seen, index, index)]
    prior = Prior(taught)
    return TwinSet(benchmark, asked, _guesses(asked, prior, seed), image_size, num_frames)


def _collect(benchmark: str, ask: Ask, place: Place, num: int) -> list[Asked]:
    asked: list[Asked] = []
    turn = index = barren = 0
    while len(asked) < num:
        found = ask(place, turn, index)
        index, barren = index + 1, 0 if found else barren + 1
        if barren > MAX_BARREN:
            raise ConfigError(
                f"The {benchmark} questions run out at {len(asked)} of {num}: {MAX_BARREN} scenes of level "
                f"{place.world.level} in a row allow none; write another data.world.level, or leave it out."
            )
        asked += found
        turn += bool(found)
    return asked


def _guesses(asked: Sequence[Asked], prior: Prior, seed: int) -> dict[str, list[list[str]]]:
    """Some who draw among the answers of a kind, one who knows the training answers, one who sees all."""
    chance, blind, ceiling = [], [], []
    for number, one in enumerate(asked):
        guess = prior.guess(one.question)
        choices = one.question.choices
        rng = stream_rng(seed, "chance", number)
        chance.append([one.say(pick(rng, choices) if choices else "") for _ in range(NUM_GUESSERS)])
        blind.append([one.say(guess)])
        # With annotators the most common word is the best that can be said.
        common = Counter(one.accepted).most_common(1)[0][0]
        ceiling.append([common if len(one.accepted) > 1 else one.say(one.question.answer)])
    return {"chance": chance, "blind": blind, "ceiling": ceiling}
