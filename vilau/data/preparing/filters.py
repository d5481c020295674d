"""Which samples of a source are left out on purpose, and how many each filter took."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vilau.data.sources.items import Item
from vilau.errors import ConfigError

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([^\s<>=!](?:[^<>=!]*[^\s<>=!])?)\s*(>=|<=|==|!=|>|<)\s*(\S.*?)\s*")
EXAMPLE = '"clip_similarity_vitb32 >= 0.3"'


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value, as ``column >= 0.3`` or ``status == success``."""

    column: str
    sign: str
    value: str

    @staticmethod
    def parse(text: str) -> Condition:
        """Read a condition; raises ``ConfigError`` when it is none. Nothing in it is ever run."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"where is {text!r}, which is no comparison; write a column, one of "
                f"{' '.join(_COMPARE)}, and a value, e.g. {EXAMPLE}."
            )
        condition = Condition(found[1], found[2], found[3].strip("'\""))
        if condition.sign not in ("==", "!=") and _number(condition.value) is None:
            raise ConfigError(
                f"where is {text!r}, which compares with {condition.value!r}; write a number after "
                f"{condition.sign}, e.g. {EXAMPLE}."
            )
        return condition

    def holds(self, columns: Mapping[str, Any]) -> bool:
        """Whether a row passes; a missing, empty or NaN value never does.

        Numbers are compared as numbers, also where the table has them as text; other values are
        compared as text.
        """
        value = columns.get(self.column)
        if value is None or value == "":
            return False
        found, wanted = _number(value), _number(self.value)
        if found is not None and wanted is not None:
            return not math.isnan(found) and _COMPARE[self.sign](found, wanted)
        if self.sign not in ("==", "!="):
            return False
        return _COMPARE[self.sign](str(value), self.value)

    def __str__(self) -> str:
        return f"where {self.column} {self.sign} {self.value}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Filters:
    """What must hold of a sample that is kept.

    Args:
        min_side: the shorter side of the image has so many pixels or more; 0: any.
        max_aspect: the longer side is at most so many times the shorter; None: any.
        min_caption: a caption has so many characters or more; of several, the shorter are left out.
        max_caption: a caption has at most so many characters; None: any.
        where: comparisons with columns of the table, all of which must hold; see ``Condition``.
        keep_empty: keep images whose caption is empty, with the caption "".
    """

    min_side: int = 0
    max_aspect: float | None = None
    min_caption: int = 0
    max_caption: int | None = None
    where: tuple[str, ...] = ()
    keep_empty: bool = False

    def check(self) -> None:
        """Raise ``ConfigError`` unless all of it makes sense."""
        if self.min_side < 0:
            raise ConfigError(f"min side is {self.min_side}; write a number of pixels.")
        if self.max_aspect is not None and not self.max_aspect >= 1.0:
            raise ConfigError(
                f"max aspect is {self.max_aspect:g}; write the longer side over the shorter, at least 1."
            )
        most = math.inf if self.max_caption is None else self.max_caption
        if not 0 <= self.min_caption <= most:
            raise ConfigError(
                f"captions of {self.min_caption} to {self.max_caption} characters are asked for; write "
                "numbers of characters from 0 on, the larger last."
            )
        self.conditions()

    def conditions(self) -> tuple[Condition, ...]:
        """The comparisons, read."""
        return tuple(Condition.parse(text) for text in self.where)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that must be read for the comparisons."""
        return tuple(dict.fromkeys(condition.column for condition in self.conditions()))

    @property
    def names(self) -> tuple[str, ...]:
        """What the filters in force are called in reports, in the order they are asked."""
        texts = (self.min_caption, self.max_caption) != (0, None)
        return (
            *map(str, self.conditions()),
            *((self.caption_name,) if texts else ()),
            *((self.side_name,) if self.min_side else ()),
            *((self.aspect_name,) if self.max_aspect is not None else ()),
        )

    @property
    def caption_name(self) -> str:
        """What the filter of captions is called."""
        most = "any number of" if self.max_caption is None else self.max_caption
        return f"caption of {self.min_caption} to {most} characters"

    @property
    def side_name(self) -> str:
        """What the filter of sides is called."""
        return f"side of {self.min_side} pixels or more"

    @property
    def aspect_name(self) -> str:
        """What the filter of shapes is called."""
        return f"aspect of {self.max_aspect:g} or less"

    def by_row(self, item: Item, conditions: Sequence[Condition]) -> tuple[Item, str]:
        """Return the item with the captions that are kept, and which filter takes it out, or ""."""
        columns = item.columns or {}
        for condition in conditions:
            if not condition.holds(columns):
                return item, str(condition)
        most = math.inf if self.max_caption is None else self.max_caption
        texts = tuple(text for text in item.texts if self.min_caption <= len(text) <= most)
        if item.texts and not texts:
            return item, self.caption_name
        return replace(item, texts=texts), ""

    def by_size(self, width: int, height: int) -> str:
        """Return which filter takes an image of this size out, or ""."""
        short, long = sorted((width, height))
        if short < self.min_side:
            return self.side_name
        if self.max_aspect is not None and long > self.max_aspect * short:
            return self.aspect_name
        return ""
