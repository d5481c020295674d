"""How many documents did not fit the language model: left out, or cut at their end."""

from collections import Counter
from collections.abc import Mapping

import torch

from vilau.models.interface import LossTerms
from vilau.training.step_counts import over_ranks

NAMES = ("documents", "dropped", "cut")
"""All documents, those left out, and those that lost the end of their text."""


class DocumentCounts:
    """Running totals, also over the part of a fit before it was resumed."""

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()
        self._own: Counter[str] = Counter()

    def add(self, documents: int, terms: LossTerms) -> None:
        """Count a batch of this rank."""
        self._own.update(documents=documents, dropped=terms.dropped, cut=terms.cut)

    def totals(self, device: torch.device) -> dict[str, int]:
        """Return the totals over all ranks, by ``NAMES``; every rank must call it."""
        own = over_ranks({name: self._own[name] for name in NAMES}, device)
        return {name: self._before[name] + own[name] for name in NAMES}

    def go_on_from(self, totals: Mapping[str, int]) -> None:
        """Begin at the totals of a run that is resumed, the same on every rank."""
        self._before, self._own = Counter(dict(totals)), Counter()


def sentence(totals: Mapping[str, Mapping[str, int]], max_length: int | None) -> str | None:
    """Say how many documents of each split did not fit; None where all did."""
    told = [
        f"left out {found['dropped']} of {found['documents']} {split} documents and cut the end off {found['cut']}"
        for split, found in totals.items()
        if found["dropped"] or found["cut"]
    ]
    if not told:
        return None
    return f"The language model's max_length of {max_length} {', and '.join(told)}; shorten them or raise max_length."
