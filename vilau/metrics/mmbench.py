"""MMBench (Liu et al. 2023): choice among options, right only if right in every rotation of the options."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.answer_metric import RecordedAnswers
from vilau.metrics.multiple_choice import true_letter
from vilau.metrics.option_letter import find_letter, letter_token
from vilau.metrics.parsers import AnswerStyle, check_style, suggestion

OPTIONS = "ABCD"
ROTATION = 1_000_000
"""Question i, its options rotated k times, has the index i + k * ROTATION."""


def match_option(answer: str, options: Mapping[str, str], style: AnswerStyle) -> str:
    """Return the letter of the option that an answer names; the empty string if none.

    ``lmms`` (``mmbench_en_dev_static``): a letter standing alone, else the one option whose text is
    inside the answer, else what `find_letter` makes of it. ``llava`` (``eval_mmbench.py`` without
    its judge model): the letter alone, "The answer is B.", or the one option that the answer is
    part of.

    Raises:
        ConfigError: unknown style.
    """
    text = answer.strip()
    if check_style(style, "MMBench") == "llava":
        return _match_like_llava(text, options)
    inside = [letter for letter, option in options.items() if str(option).lower() in text.lower()]
    named = letter_token(text) or (inside[0] if len(inside) == 1 else "")
    return named or find_letter(text, sorted(options))


def _match_like_llava(text: str, options: Mapping[str, str]) -> str:
    alone = text.strip(".").strip().upper()
    if alone in options:
        return alone
    for letter in options:
        if f"the answer is {letter.lower()}." in text.lower():
            return letter
    around = [letter for letter, option in options.items() if text.lower() in str(option).lower()]
    return around[0] if len(around) == 1 else ""


class MMBench(RecordedAnswers):
    """MMBench's accuracy without a judge model: an answer in which no option is found is wrong.

    Args:
        style: see `match_option`.
        categories: abilities to report one by one; with none given, only the totals.
    """

    title: ClassVar[str] = "MMBench circular accuracy (static matcher)"
    columns: ClassVar[Mapping[str, str]] = {"indices": "index", "truths": "answer"}
    width: ClassVar[int] = 4

    def __init__(self, style: AnswerStyle = "lmms", categories: Sequence[str] = ()) -> None:
        super().__init__(style)
        self.categories = tuple(categories)

    def update(
        self,
        answers: Sequence[str],
        truths: Sequence[str],
        indices: Sequence[int],
        options: Sequence[Mapping[str, str]],
        categories: Sequence[str] | None = None,
    ) -> None:
        """Add answers.

        Args:
            answers: what the model said.
            truths: the right letters.
            indices: which question in which rotation: i + k * 1,000,000.
            options: for each question the text of each letter it offers.
            categories: needed if the metric was made with categories.

        Raises:
            DataError: a truth is no letter, a question has no options, a category is unknown, or the
                numbers differ.
        """
        names = self.categories and (categories or [])
        others = {"truths": truths, "indices": indices, "options": options}
        self.check_counts(answers, **others, **({"categories": names} if names != () else {}))
        rows = []
        for place, (answer, truth, index, offered) in enumerate(
            zip(answers, truths, indices, options, strict=True)
        ):
            if not offered:
                raise DataError(f"MMBench question {index} offers no options; give it A, B, ...")
            right = match_option(answer, offered, self.style) == true_letter(truth, "MMBench")
            category = self._category(names[place]) if names else -1
            rows.append((index % ROTATION, index // ROTATION, int(right), category))
        self.record(rows)

    def _category(self, name: str) -> int:
        if name not in self.categories:
            raise DataError(
                f"An MMBench question is of category '{name}'. {suggestion(name, self.categories)}"
            )
        return self.categories.index(name)

    def arguments(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return what ``update`` takes, out of rows with ``A`` to ``D``, empty where not offered."""
        found = super().arguments(rows)
        found["options"] = [
            {letter: row[letter] for letter in OPTIONS if _offered(row.get(letter))} for row in rows
        ]
        if self.categories:
            found["categories"] = [self.cell(row, "category") for row in rows]
        return found

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` (right in all rotations), ``vanilla_accuracy`` (the unrotated questions
        alone) and ``<category>_accuracy`` of each category asked: in 0..1.

        Raises:
            DataError: rotations came without their unrotated question, or a question came twice.
        """
        records = self.all_records()
        question, rotation, right, category = records.unbind(dim=1)
        if len(torch.unique(records[:, :2], dim=0)) != len(records):
            raise DataError(
                "An MMBench index was answered twice; give every rotation of every question once."
            )
        first = rotation == 0
        _, place, asked = torch.unique(question, return_inverse=True, return_counts=True)
        if int(first.sum()) != len(asked):
            raise DataError(
                f"{len(asked) - int(first.sum())} MMBench questions have rotations but not the unrotated question "
                f"(index below {ROTATION}); give all rotations of a question."
            )
        rights = torch.zeros(len(asked), dtype=torch.int64).index_add_(0, place, right)
        hit = (rights == asked).double()[place]
        scores = {"accuracy": hit[first].mean(), "vanilla_accuracy": right[first].double().mean()}
        for index, name in enumerate(self.categories):
            chosen = first & (category == index)
            if bool(chosen.any()):
                scores[f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}_accuracy"] = hit[chosen].mean()
        return {name: value.float() for name, value in scores.items()}


def _offered(option: object) -> bool:
    return option is not None and not (isinstance(option, float) and math.isnan(option))
