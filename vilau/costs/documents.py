"""The documents that a language model is trained on: how often each form comes, and how long it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vilau.costs.config import Config, argument, arguments, class_of

TEXT_TOKENS = 40
"""Text of a pair with the prompt around it."""
TURN_TOKENS = 20
"""A question with its answer and the words around them."""
ANSWER_TOKENS = 4
"""The answer alone."""
EXAM_TOKENS = 35
"""A question in the form of a published benchmark, its options included."""
CLIP_FRAMES = 8
"""Default of ``ClipSpec.num_frames``."""


@dataclass(frozen=True)
class Form:
    """One form of document: how many a sample, and how many images, words and learnt words it holds."""

    share: float
    images: int
    text: float
    targets: float
    drawn: bool = False
    per_image: int = 1
    """Documents about the same images, which the tower reads once for all."""


def document_forms(config: Config) -> list[Form]:
    """The forms of pretraining's and fine-tuning's documents; of a blend those of its sources by weight."""
    if class_of(config, "data").endswith(".Blend"):
        return _blended(config)
    clips = arguments(config, "data").get("clips") or {}
    frames = clips.get("seen_frames") or clips.get("num_frames", CLIP_FRAMES)
    if class_of(config, "data").endswith("Instructions"):
        turns, video = (
            argument(config, "data", name) for name in ("turns_per_image", "video_share")
        )
        hidden = argument(config, "data", "hidden_share")
        draw = argument(config, "data", "drawing_share") * (1 - video) * (1 - hidden)
        exam = argument(config, "data", "exam_share")
        text = ((1 - exam) * TURN_TOKENS + exam * EXAM_TOKENS) * turns
        reading = [
            Form((1 - hidden) * (1 - video) - draw, 1, text, ANSWER_TOKENS * turns),
            Form((1 - hidden) * video, frames, TURN_TOKENS * turns, ANSWER_TOKENS * turns),
            Form(hidden * (1 - video), 0, text, ANSWER_TOKENS * turns),
            Form(hidden * video, 0, TURN_TOKENS * turns, ANSWER_TOKENS * turns),
        ]
        if not argument(config, "model", "share_images"):
            single = argument(config, "data", "single_turn_share")
            reading = [part for form in reading for part in _parted(form, single, turns)]
        return [*reading, Form(draw, 1, TEXT_TOKENS, 1, drawn=True)]
    several = argument(config, "data", "interleaved_images")
    forms = [
        Form(argument(config, "data", "image_to_text_share"), 1, TEXT_TOKENS, TEXT_TOKENS),
        Form(argument(config, "data", "text_to_image_share"), 1, TEXT_TOKENS, 1, drawn=True),
        Form(argument(config, "data", "text_to_video_share"), frames, TEXT_TOKENS, 1, drawn=True),
        Form(
            argument(config, "data", "interleaved_share"),
            several,
            several * TEXT_TOKENS,
            several * TEXT_TOKENS,
        ),
    ]
    bare = max(0.0, 1 - sum(form.share for form in forms))
    return [*forms, Form(bare, 0, TEXT_TOKENS, TEXT_TOKENS)]


def _blended(config: Config) -> list[Form]:
    sources = arguments(config, "data").get("sources") or []
    total = sum(source["weight"] for source in sources)
    return [
        replace(form, share=form.share * source["weight"] / total)
        for source in sources
        for form in document_forms({**config, "data": source["data"]})
    ]


def _parted(form: Form, share: float, turns: int) -> list[Form]:
    """The conversations that stay, and those that become a document a turn, each with its images."""
    single = replace(
        form,
        share=form.share * share * turns,
        text=form.text / turns,
        targets=form.targets / turns,
        per_image=turns,
    )
    return [replace(form, share=form.share * (1 - share)), single]
