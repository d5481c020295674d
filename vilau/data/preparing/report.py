"""What came of a preparation: for the terminal, and for the set's manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilau.data.preparing.listing import Counts
from vilau.data.preparing.parts import PartCounts
from vilau.data.shards import UNREADABLE


def spec_of(listed: Counts, written: PartCounts, *, filters: Sequence[str]) -> dict[str, Any]:
    """Numbers for the manifest: what was found, and what became of what is not in the set.

    What only documents of several images or clips can have stands there where it is not zero.
    ``left_out`` has every filter of ``filters``, also one that took nothing out.
    """
    taken = Counter(listed.filtered) + (written.filtered or Counter())
    images = Counter(listed.images_left_out) + (written.images_left_out or Counter())
    more = {
        "images_lost": listed.lost + written.lost,
        "clips_cut": written.cut,
        "images_left_out": dict(sorted(images.items())),
    }
    return {
        "found": listed.listed + listed.unreadable + listed.unpaired,
        "unreadable": listed.unreadable + written.unreadable,
        "unpaired": listed.unpaired,
        "empty_captions": listed.empty,
        "left_out": dict.fromkeys(filters, 0) | dict(sorted(taken.items())),
        "animated": written.animated,
        **{key: value for key, value in more.items() if value},
    }


@dataclass(frozen=True)
class Prepared:
    """What came of it."""

    folder: Path
    title: str
    count: int
    spec: dict[str, Any]
    """As in the manifest."""
    already: bool = False
    """The folder held all of it before."""

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.count} samples from {self.title}"]
        lines.append(
            f"{self.folder} holds them already; nothing was done"
            if self.already
            else f"written to {self.folder}"
        )
        listed = f"skipped and listed in {self.folder / UNREADABLE}"
        for key, words in (
            ("unreadable", f"unreadable, {listed}"),
            ("unpaired", f"unpaired, {listed}"),
            ("empty_captions", f"with an empty caption, {listed}"),
            (
                "images_lost",
                f"images that documents do without, listed in {self.folder / UNREADABLE}",
            ),
            (
                "clips_cut",
                f"broken clips used up to the break, listed in {self.folder / UNREADABLE}",
            ),
            ("animated", "animated or of several pages; the first picture stands for each"),
        ):
            if self.spec.get(key):
                lines.append(f"{self.spec[key]} {words}")
        for name, number in self.spec.get("left_out", {}).items():
            lines.append(f"{number} left out by the filter: {name}")
        for name, number in self.spec.get("images_left_out", {}).items():
            lines.append(f"{number} images left out of their documents: {name}")
        return "\n".join(lines)
