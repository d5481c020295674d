"""The small language of claims: numbers, names, ``+ - * /``, ``min``, ``max``, comparisons, ``and``, ``or``, brackets.

    recon_and_contrastive.VQA > recon_only.VQA + 0.1 and recon_only.rFID < 9

A name is ``variant.Column`` as the table knows it; headings may hold hyphens (``Top-1``) and spaces, so names are
matched against the known ones, longest first. Nothing is ever evaluated as Python.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_EXTREMES: dict[str, Callable[[Iterable[float]], float]] = {"min": min, "max": max}
_BINDING = {"or": 1, "and": 2, "compare": 3, "+": 4, "-": 4, "*": 5, "/": 5, "negate": 6}
"""What binds its parts more tightly has the larger number; what is missing stands for itself."""
_SYMBOL = re.compile(r">=|<=|==|!=|[-+*/<>(),]")
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[^\s()<>=!*/+,]+")


@dataclass(frozen=True)
class Token:
    """A piece of an expression; its kind: number, name, symbol, and, or, min, max, end."""

    kind: str
    text: str


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    ``kind`` is ``number``, ``name``, ``negate``, an arithmetic symbol, ``min``, ``max``, ``compare``, ``and``, ``or``;
    ``text`` is the number, the name, or for ``compare`` the symbols between the parts with blanks between
    (``a < b <= c``).
    """

    kind: str
    text: str = ""
    parts: tuple[Expression, ...] = ()

    def names(self) -> list[str]:
        """Return every name in reading order, each once."""
        found = [self.text] if self.kind == "name" else []
        for part in self.parts:
            found.extend(part.names())
        return list(dict.fromkeys(found))

    def value(self, values: Mapping[str, float]) -> float:
        """Return the number this expression stands for (comparisons: 1.0 or 0.0).

        Raises:
            KeyError: a name is not in ``values``.
            ZeroDivisionError: a division by zero.
        """
        if self.kind == "number":
            return float(self.text)
        if self.kind == "name":
            return values[self.text]
        numbers = [part.value(values) for part in self.parts]
        if self.kind == "negate":
            return -numbers[0]
        if self.kind in _ARITHMETIC:
            return _ARITHMETIC[self.kind](*numbers)
        if self.kind in _EXTREMES:
            return _EXTREMES[self.kind](numbers)
        if self.kind == "compare":
            pairs = zip(self.text.split(), numbers, numbers[1:], strict=False)
            return float(all(_COMPARE[symbol](left, right) for symbol, left, right in pairs))
        return float(all(numbers) if self.kind == "and" else any(numbers))

    def margin(self, values: Mapping[str, float]) -> float | None:
        """Return by how much the comparison holds: positive where it does, negative where it does not.

        Of a chain and of ``and`` the smallest, of ``or`` the largest; None where no side is to be greater.

        Raises:
            KeyError: a name is not in ``values``.
            ZeroDivisionError: a division by zero.
        """
        if self.kind in ("and", "or"):
            inner = [part.margin(values) for part in self.parts]
            known = [margin for margin in inner if margin is not None]
            if len(known) < len(inner):
                return None
            return min(known) if self.kind == "and" else max(known)
        symbols = self.text.split() if self.kind == "compare" else []
        if not symbols or any(symbol in ("==", "!=") for symbol in symbols):
            return None
        numbers = [part.value(values) for part in self.parts]
        return min(
            left - right if ">" in symbol else right - left
            for symbol, left, right in zip(symbols, numbers, numbers[1:], strict=False)
        )

    def show(self, names: Callable[[str], str]) -> str:
        """Return the expression as text with every name replaced by ``names(name)``."""
        shown = [self._within(part, place, names) for place, part in enumerate(self.parts)]
        if self.kind == "number":
            return self.text
        if self.kind == "name":
            return names(self.text)
        if self.kind == "negate":
            return f"-{shown[0]}"
        if self.kind in _EXTREMES:
            return f"{self.kind}({', '.join(shown)})"
        if self.kind == "compare":
            symbols = self.text.split()
            return shown[0] + "".join(
                f" {symbol} {part}" for symbol, part in zip(symbols, shown[1:], strict=True)
            )
        return f" {self.kind} ".join(shown)

    def _within(self, part: Expression, place: int, names: Callable[[str], str]) -> str:
        """A part as text, in brackets where it would be read otherwise without."""
        text = part.show(names)
        mine, theirs = _BINDING.get(self.kind, 0), _BINDING.get(part.kind, 9)
        # What is taken away, or divided by, is a whole: a - (b - c).
        looser = theirs < mine or (theirs == mine and place > 0 and self.kind in ("-", "/"))
        return f"({text})" if looser or (theirs == mine and self.kind == "compare") else text


def parse(text: str, known: Iterable[str]) -> Expression:
    """Parse an expression over the known names.

    Raises:
        ConfigError: an unknown name (with the closest known one), or a piece that does not fit.
    """
    return _Parser(_tokens(text, list(known)), text).whole()


def _tokens(text: str, known: list[str]) -> list[Token]:
    longest_first = sorted(known, key=len, reverse=True)
    tokens: list[Token] = []
    rest = text.strip()
    while rest:
        token = _next_token(rest, longest_first, text)
        tokens.append(token)
        rest = rest[len(token.text) :].lstrip()
    return [*tokens, Token("end", "")]


def _next_token(rest: str, known: list[str], text: str) -> Token:
    for name in known:
        follower = rest[len(name) : len(name) + 1]
        if rest.startswith(name) and not (follower.isalnum() or follower in ("_", ".")):
            return Token("name", name)
    if match := _NUMBER.match(rest):
        return Token("number", match.group())
    if match := _SYMBOL.match(rest):
        return Token("symbol", match.group())
    word = match.group() if (match := _WORD.match(rest)) else rest[0]
    if word in ("and", "or", *_EXTREMES):
        return Token(word, word)
    raise ConfigError(f"`{text}` names `{word}`, which is not known.{did_you_mean(word, known)}")


class _Parser:
    """Recursive descent over the tokens, one method per level of binding."""

    def __init__(self, tokens: list[Token], text: str) -> None:
        self._tokens = tokens
        self._text = text

    def whole(self) -> Expression:
        expression = self._any_of()
        if self._tokens[0].kind != "end":
            raise self._unfit()
        return expression

    def _any_of(self) -> Expression:
        return self._joined("or", self._all_of)

    def _all_of(self) -> Expression:
        return self._joined("and", self._comparison)

    def _joined(self, word: str, inner: Callable[[], Expression]) -> Expression:
        parts = [inner()]
        while self._tokens[0].kind == word:
            self._tokens.pop(0)
            parts.append(inner())
        return parts[0] if len(parts) == 1 else Expression(word, parts=tuple(parts))

    def _comparison(self) -> Expression:
        parts, symbols = [self._sum()], []
        while self._tokens[0].text in _COMPARE:
            symbols.append(self._tokens.pop(0).text)
            parts.append(self._sum())
        if not symbols:
            return parts[0]
        return Expression("compare", " ".join(symbols), tuple(parts))

    def _sum(self) -> Expression:
        return self._chain("+-", self._product)

    def _product(self) -> Expression:
        return self._chain("*/", self._signed)

    def _chain(self, symbols: str, inner: Callable[[], Expression]) -> Expression:
        left = inner()
        while self._tokens[0].kind == "symbol" and self._tokens[0].text in symbols:
            symbol = self._tokens.pop(0).text
            left = Expression(symbol, parts=(left, inner()))
        return left

    def _signed(self) -> Expression:
        if self._tokens[0].text == "-":
            self._tokens.pop(0)
            return Expression("negate", parts=(self._signed(),))
        return self._atom()

    def _atom(self) -> Expression:
        token = self._tokens[0]
        if token.kind in ("number", "name"):
            self._tokens.pop(0)
            return Expression(token.kind, token.text)
        if token.kind in _EXTREMES:
            self._tokens.pop(0)
            self._expect("(")
            parts = [self._sum()]
            while self._tokens[0].text == ",":
                self._tokens.pop(0)
                parts.append(self._sum())
            self._expect(")")
            return Expression(token.kind, parts=tuple(parts))
        if token.text == "(":
            self._tokens.pop(0)
            inside = self._any_of()
            self._expect(")")
            return inside
        raise self._unfit()

    def _expect(self, symbol: str) -> None:
        if self._tokens[0].text != symbol:
            raise self._unfit()
        self._tokens.pop(0)

    def _unfit(self) -> ConfigError:
        token = self._tokens[0].text or "the end"
        return ConfigError(
            f"`{self._text}` cannot be read at `{token}`; write e.g. `a.Column > b.Column + 0.1`."
        )
