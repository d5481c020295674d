"""A value in a YAML file together with its place, so that every complaint can name both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean
from vilau.study.yaml_reader import KeyPath, YamlFile


class Node:
    """One value of a file: typed getters that complain with ``file:line`` (all raise ``ConfigError``)."""

    def __init__(self, file: YamlFile, path: KeyPath, data: Any) -> None:
        self.file, self.path, self.data = file, path, data

    @property
    def shown(self) -> str:
        """The dotted key, as a message names it."""
        return ".".join(str(part) for part in self.path) or "the file"

    def wrong(self, message: str) -> ConfigError:
        """Return a complaint that names file and line."""
        return ConfigError(f"{self.file.where(self.path)}: {message}.")

    def child(self, key: str, *, required: bool = False) -> Node:
        """Return the value of ``key``; a missing one holds None unless ``required``."""
        value = self._mapping().get(key)
        if value is None and required:
            raise self.wrong(f"{self.shown} lacks the key `{key}`")
        return Node(self.file, (*self.path, key), value)

    def entries(self) -> dict[str, Node]:
        """Return the values of a mapping by their keys; nothing for None."""
        return {
            str(key): Node(self.file, (*self.path, key), value)
            for key, value in self._mapping().items()
        }

    def list_items(self) -> list[Node]:
        """Return the items of a list; nothing for None."""
        if self.data is None:
            return []
        if not isinstance(self.data, list):
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write a list")
        return [Node(self.file, (*self.path, i), value) for i, value in enumerate(self.data)]

    def only(self, allowed: str | Iterable[str], kind: str = "key") -> None:
        """Refuse keys that are not among ``allowed``, suggesting the nearest."""
        known = allowed.split() if isinstance(allowed, str) else list(allowed)
        for key, node in self.entries().items():
            if key not in known:
                raise ConfigError(
                    f"{self.file.where(node.path)}: unknown {kind} `{key}`.{did_you_mean(key, known)}"
                )

    def choices(self, allowed: Iterable[str], kind: str) -> dict[str, Node]:
        """Return the items; their keys must be among ``allowed``, which are of this ``kind``."""
        self.only(allowed, kind)
        return self.entries()

    def text(self, default: str | None = None) -> str:
        """Return a text that is not blank."""
        if self.data is None and default is not None:
            return default
        if not isinstance(self.data, str) or not self.data.strip():
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write a text")
        return self.data

    def identifier(self) -> str:
        """Return a text that can name a folder."""
        name = self.text()
        if not name.replace("-", "_").isidentifier():
            raise self.wrong(f"`{name}` is no name; use letters, digits and _, no leading digit")
        return name

    def number(self) -> float:
        """Return a number; true and false are none."""
        if isinstance(self.data, bool) or not isinstance(self.data, (int, float)):
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write a number")
        return float(self.data)

    def integer(self) -> int:
        """Return a whole number of at least 0."""
        if isinstance(self.data, bool) or not isinstance(self.data, int) or self.data < 0:
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write a whole number such as 0")
        return self.data

    def flag(self, default: bool) -> bool:
        """Return true or false."""
        if self.data is None:
            return default
        if not isinstance(self.data, bool):
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write true or false")
        return self.data

    def named(self) -> dict[str, Node]:
        """Return the items; their keys become folder names, so they must be identifiers."""
        for node in self.entries().values():
            Node(self.file, node.path, node.path[-1]).identifier()
        return self.entries()

    def _mapping(self) -> Mapping[Any, Any]:
        if self.data is None:
            return {}
        if not isinstance(self.data, dict):
            raise self.wrong(f"`{self.shown}` holds {self.data!r}; write a mapping of keys")
        return self.data
