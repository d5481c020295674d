"""One sentence out of jsonargparse's many: the key, what it holds, and what it could hold.

jsonargparse tells a mistake deep inside a class as a tree of "Union subtypes" with a dump of the
whole value. The branch that matters always names the option or the expected type; this module finds
it and says it with the key as the user wrote it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vilau.errors import ConfigError, VilauError
from vilau.study.dotted import dotted_keys
from vilau.study.schema import SECTIONS
from vilau.study.suggest import did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_GROUP_OPTION = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_VALUE = re.compile(r"Expected a (.+)\. Got value: (.*)")
_EXPECTED = re.compile(r"- Expected a (.+)")
_GIVEN = re.compile(r"Given value: (.*)")
_NO_CLASS = re.compile(
    r"(module '[^']+' has no attribute '[^']+'|No module named '[^']+'|cannot import name '[^']+' from '[^']+'"
    r"|Import path \S+ does not correspond to a subclass of \S+)"
)
_LEADING_KEY = re.compile(r"`?([A-Za-z_]\w*(?:\.\w+|\[\d+\])+)`? ")
_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "NoneType": "null",
}


def explain(
    error: BaseException, config: dict[str, Any], origin: Callable[[str], str]
) -> VilauError | None:
    """Return the user's mistake behind ``error``, or None if the fault is not in the config.

    Args:
        error: what parsing or building a stage raised.
        config: the stage config that was parsed.
        origin: dotted key -> ``file:line`` (or an empty text), to say where the value stands.
    """
    for cause in _chain(error):
        if isinstance(cause, VilauError):
            return placed(cause, config, origin)
    if not _is_parse_error(error):
        return None
    place, sentence = _sentence(str(error), config)
    where = origin(place) if place else ""
    return ConfigError(f"{where}: {sentence}" if where else sentence)


def placed(error: VilauError, config: dict[str, Any], origin: Callable[[str], str]) -> VilauError:
    """Return ``error`` with the place of the key its sentence begins with; as it is where that is not known.

    Args:
        error: what a constructor raised: ``quantizer.depth is 0; write 1 or more.``
        config: the stage config it was built from.
        origin: dotted key -> ``file:line`` (or an empty text).
    """
    match = _LEADING_KEY.match(str(error)) if isinstance(error, ConfigError) else None
    if match is None:
        return error
    key = _written(match[1].replace("[", ".").replace("]", ""), list(dotted_keys(config)))
    where = origin(key) if key else ""
    return type(error)(f"{where}: {error}") if where else error


def _written(key: str, known: list[str]) -> str:
    """Return the known key that a sentence calls ``key``, or its nearest parent; empty where several might be meant.

    A constructor does not know where it stands: it says ``quantizer.depth`` of ``model.quantizer.depth``, and in a
    blend ``data.world.level`` of ``data.sources.0.data.world.level``.
    """
    words = key.split(".")
    while words:
        name = ".".join(words)
        found = [name] if name in known else [one for one in known if one.endswith(f".{name}")]
        if not found and len(words) > 2 and words[0] in SECTIONS:
            start, end = f"{words[0]}.", f".{name.partition('.')[2]}"
            found = [one for one in known if one.startswith(start) and one.endswith(end)]
        if found:
            return found[0] if len(found) == 1 else ""
        words.pop()
    return ""


def root_cause(error: BaseException) -> BaseException:
    """Return the innermost exception of a chain: the constructor's own, under jsonargparse's."""
    *_, last = _chain(error)
    return last


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_parse_error(error: BaseException) -> bool:
    # argparse.ArgumentError is what jsonargparse raises with exit_on_error=False; while building,
    # it wraps a constructor's own exception instead, which is no mistake of the config's form.
    return any(type(cause).__name__ == "ArgumentError" for cause in _chain(error))


@dataclass
class _Branch:
    """What the lines read so far say about the place of the mistake."""

    keys: list[str] = field(default_factory=list)
    class_path: str = ""
    expected: list[str] = field(default_factory=list)

    def place(self, config: dict[str, Any], *more: str) -> str:
        keys = list(self.keys)
        found = _at(config, ".".join(keys)) if self.class_path else None
        items = found if isinstance(found, list) else []
        if any(isinstance(i, dict) and i.get("class_path") == self.class_path for i in items):
            keys.append(self.class_path.rpartition(".")[2])
        return ".".join([*keys, *more])


def _sentence(text: str, config: dict[str, Any]) -> tuple[str, str]:
    """Return the dotted key at fault and the sentence about it."""
    branch = _Branch()
    for line in text.splitlines():
        if match := _KEY.search(line):
            branch.keys.append(match[1])
            branch.expected.clear()
        if match := _CLASS.search(line):
            branch.class_path = match[1]
        if match := _OPTION.search(line):
            return _unknown(branch, config, "", match[1])
        if match := _GROUP_OPTION.search(line):
            return _unknown(branch, config, match[1], match[2])
        if match := _VALUE.search(line):
            return _wrong_value(branch, config, [match[1]], match[2])
        if match := _NO_CLASS.search(line):
            return _no_class(branch, config, match[1])
        if match := _EXPECTED.search(line):
            branch.expected.append(match[1])
        elif (match := _GIVEN.search(line)) and branch.expected:
            return _wrong_value(branch, config, branch.expected, match[1])
    return branch.place(config), " ".join(text.split())


def _unknown(branch: _Branch, config: dict[str, Any], group: str, option: str) -> tuple[str, str]:
    option = option.split(".")[0]
    place = branch.place(config, *([group] if group else []), option)
    if not branch.class_path:
        owner = group or "a stage"
        known = _trainer_arguments() if group == "trainer" else list(SECTIONS)
    else:
        owner = branch.class_path.rpartition(".")[2]
        known = _arguments(branch.class_path, group)
    return (
        place,
        f"unknown key `{place}`: {owner} has none of that name.{did_you_mean(option, known)}",
    )


def _wrong_value(
    branch: _Branch, config: dict[str, Any], expected: list[str], value: str
) -> tuple[str, str]:
    place = branch.place(config)
    kinds = list(dict.fromkeys(_kind(text) for text in expected))
    return place, f"`{place}` holds `{value}`; write {' or '.join(kinds)}."


def _no_class(branch: _Branch, config: dict[str, Any], problem: str) -> tuple[str, str]:
    place = branch.place(config)
    module_path, _, name = branch.class_path.rpartition(".")
    hint = ""
    if "has no attribute" in problem:
        names = vars(importlib.import_module(module_path))
        hint = did_you_mean(name, [n for n, v in names.items() if isinstance(v, type)])
    return f"{place}.class_path", f"`{place}.class_path`: {problem}.{hint}"


def _kind(text: str) -> str:
    """Turn a type as jsonargparse prints it into words."""
    if match := re.fullmatch(r"<class '(?:.*\.)?(\w+)'>", text):
        return _KINDS.get(match[1], f"a {match[1]}")
    if match := re.fullmatch(r"typing\.Literal\[(.*)\]", text):
        return f"one of {match[1]}"
    return text


def _arguments(class_path: str, group: str) -> list[str]:
    """Return the settings a class accepts (inside ``group``, a nested dataclass, where given)."""
    # Imported here: `plan` and `list` use this package without paying for jsonargparse.
    from jsonargparse import ArgumentParser

    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(
        getattr(importlib.import_module(module), name), "x", fail_untyped=False
    )
    prefix = f"x.{group}." if group else "x."
    keys = parser.get_defaults().keys()
    return [key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix)]


def _trainer_arguments() -> list[str]:
    return _arguments("lightning.pytorch.trainer.trainer.Trainer", "")


def _at(config: Any, key: str) -> Any:
    """Return the value under a dotted key, entering ``init_args`` where a class stands."""
    for word in key.split("."):
        if isinstance(config, dict) and "class_path" in config and word != "class_path":
            config = config.get("init_args")
        config = config.get(word) if isinstance(config, dict) else None
    return config
