"""Questions about pictures and clips in one list: pictures in one batch, clips one by one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.models.interface import UnifiedModel
from vilau.models.sequence.prompts import IMAGE_MARK, VIDEO_END, VIDEO_START, without_marks
from vilau.types import LETTERS


def clip_marks(model: UnifiedModel, num_frames: int) -> str:
    """Return the marks of a clip's frames and the line break after them, as the model was trained to see them.

    In the published form one mark a line; else the frames stand between the tokens that begin and end a clip.
    """
    prompt: Any = getattr(model, "prompt", None)
    if prompt is not None and prompt.form == "published":
        return f"{IMAGE_MARK}\n" * num_frames
    return f"{VIDEO_START}{IMAGE_MARK * num_frames}{VIDEO_END}\n"


def clip_question(model: UnifiedModel, question: str, num_frames: int) -> str:
    """Put the marks of a clip's frames before a question, see ``clip_marks``.

    A question with marks of its own, for pictures here and there, stays as it is.
    """
    return question if IMAGE_MARK in question else clip_marks(model, num_frames) + question


def without_images(images: Tensor, questions: Sequence[str]) -> tuple[Tensor, list[str], list[int]]:
    """Return images, questions and frames of the same questions for who is shown nothing: a blind baseline.

    No image of those given is left, no mark in the texts, and each question is about 0 of them.
    """
    return images[:0], [without_marks(one) for one in questions], [0] * len(questions)


def answers_about(
    model: UnifiedModel,
    images: Tensor,
    questions: Sequence[str],
    frames: Sequence[int] = (),
    *,
    max_new_tokens: int,
) -> list[str]:
    """Return greedy answers.

    Args:
        model: answers.
        images: float ``(N, 3, H, W)`` in [-1, 1], those of each question together.
        questions: texts; those about several images may have a mark for each.
        frames: how many images each question is about, adding up to N, 0 for none; empty: one each.
        max_new_tokens: where an answer ends at the latest.

    Raises:
        DataError: frames and images differ in number.
    """
    if not frames:
        return model.answer(images, questions, max_new_tokens=max_new_tokens)
    if len(frames) != len(questions) or sum(frames) != len(images):
        raise DataError(
            f"{len(questions)} questions have {len(images)} images in {len(frames)} groups that add up to "
            f"{sum(frames)}; give each question its number of images."
        )
    clips = images.split(list(frames))
    answers = [""] * len(questions)
    for shown in (0, 1):
        alike = [index for index, count in enumerate(frames) if count == shown]
        if alike:
            pictures = torch.cat([clips[index] for index in alike]) if shown else None
            asked = [questions[index] for index in alike]
            said = model.answer(pictures, asked, max_new_tokens=max_new_tokens)
            for index, text in zip(alike, said, strict=True):
                answers[index] = text
    for index, count in enumerate(frames):
        if count > 1:
            prompt = clip_question(model, questions[index], count)
            answers[index] = model.generate_text(
                clips[index], prompt, max_new_tokens=max_new_tokens
            )
    return answers


def likeliest_letters(
    model: UnifiedModel,
    images: Tensor,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    frames: Sequence[int] = (),
) -> list[str]:
    """Rank the options of each question by how likely the model is to say them, and return the likeliest's letter.

    The protocol of SEED-Bench (Li et al. 2023, "SEED-Bench: Benchmarking multimodal LLMs with generative
    comprehension"): the model is not shown the options and need not know letters. Likelihood is the mean
    log-probability of an option's tokens, its end included, as in the authors' code for LLaVA; in theirs for
    InstructBLIP it is the sum.

    Args:
        model: is asked.
        images: as of ``answers_about``.
        questions: without their options.
        options: of each question, at most ten.
        frames: as of ``answers_about``.

    Raises:
        DataError: numbers differ, a question has no options, or an option does not fit the model.
    """
    counts = list(frames) or [1] * len(questions)
    if not len(counts) == len(questions) == len(options) or sum(counts) != len(images):
        raise DataError(
            f"{len(questions)} questions have {len(options)} sets of options and {len(images)} images in "
            f"{len(counts)} groups that add up to {sum(counts)}; give each question its options and images."
        )
    for question, said in zip(questions, options, strict=True):
        if not 0 < len(said) <= len(LETTERS):
            raise DataError(
                f"the question '{question}' has {len(said)} options to be ranked; give it 1 to {len(LETTERS)}, or ask "
                "for an answer."
            )
    found = []
    shown = images.split(counts)
    for pictures, question, said in zip(shown, questions, options, strict=True):
        prompt = clip_question(model, question, len(pictures)) if len(pictures) > 1 else question
        found.append(LETTERS[int(model.answer_log_likelihoods(pictures, prompt, said).argmax())])
    return found
