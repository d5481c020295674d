"""Strict YAML: no key is lost or renamed on the way in, and every value knows its line.

Plain YAML 1.1 reads the keys ``on`` and ``off`` as booleans, drops the first of two equal keys without a word
and takes ``1e-4`` for text. A study would lose a variant to the first, a setting to the second; both are refused here
with file and line, and the third is read as the number it is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vilau.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its data, and the line on which each value stands."""

    name: str
    """The path as the user knows it, for messages."""
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    text: str = ""

    def where(self, path: KeyPath) -> str:
        """Return ``file:line`` of the value at ``path``, or of its nearest parent that has a line."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


class _StrictLoader(yaml.SafeLoader):
    """A safe loader of our own, so that the number rule below stays out of PyYAML's global one."""


_StrictLoader.yaml_implicit_resolvers = {
    first: list(rules) for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: str | Path, *, what: str = "file") -> YamlFile:
    """Read one YAML file.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, or has a duplicate, boolean or empty key.
    """
    name = _short(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such {what}; check the path.") from None
    except IsADirectoryError:
        raise ConfigError(f"{name} is a folder; name a YAML {what} in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: the {what} cannot be read ({error}).") from error
    return parse_yaml(text, name=name)


def parse_yaml(text: str, *, name: str) -> YamlFile:
    """Parse YAML text; ``name`` stands in messages for the file."""
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(node, (), lines, name)
        data = loader.construct_document(node) if node is not None else None  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {error}.") from error
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]
    return YamlFile(name=name, data=data, lines=lines, text=text)


def parse_value(text: str) -> Any:
    """Read the value of ``--set key=value`` as YAML would."""
    return parse_yaml(text, name="--set").data


def leading_comment(text: str) -> str:
    """Return the comment at the top of a file up to its first empty line, as one sentence."""
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        words.append(line.strip("# ").strip())
    return re.sub(r"\s{2,}", "  ", " ".join(words))


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Note the line of every value below ``node`` and refuse keys that YAML would change or drop."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, name)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Hashable] = set()
    for key_node, value_node in node.value:
        key = _checked_key(key_node, name)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(f"{name}:{line}: the key `{key}` stands twice; keep one of them.")
        seen.add(key)
        lines[(*path, key)] = line
        _walk(value_node, (*path, key), lines, name)


def _checked_key(node: yaml.Node, name: str) -> str:
    """Return the key's text if YAML reads it as written."""
    where = f"{name}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{where}: a key must be a word, not a list or mapping.")
    if node.tag == "tag:yaml.org,2002:bool":
        read = node.value.lower() in ("on", "yes", "true")
        raise ConfigError(
            f"{where}: YAML reads the key `{node.value}` as {read}; rename it or put it in quotes."
        )
    if node.tag == "tag:yaml.org,2002:null":
        raise ConfigError(f"{where}: YAML reads the key `{node.value}` as empty; put it in quotes.")
    return str(node.value)


def _short(path: Path) -> str:
    """Return the path relative to the working folder where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
