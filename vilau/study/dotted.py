"""Dotted keys: ``model.contrastive_weight`` reaches ``model.init_args.contrastive_weight``.

A key is written as one would type it; where the mapping on the way names a class (``class_path``), the next word is an
argument of that class. An item of a list is reached by its position or by its class's name:
``trainer.callbacks.ReconstructionFID.num_images``. A key that ends in ``+`` appends to a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def set_dotted(config: dict[str, Any], key: str, value: Any) -> None:
    """Write ``value`` under ``key`` into ``config``, in place; mappings are merged, everything else replaced.

    Raises:
        ConfigError: the key leads through a value that holds no keys, or names a list item that is not there.
    """
    *way, last = key.split(".")
    node: Any = config
    for position, word in enumerate(way):
        node = _step(node, word, ".".join(way[: position + 1]))
    node = _arguments(node, last)
    shown = ".".join(way) or "config"
    if isinstance(node, list):
        index = _item(node, last, shown)
        node[index] = merged(node[index], value)
    elif not isinstance(node, dict):
        raise ConfigError(f"`{key}` cannot be set: `{shown}` holds {node!r}, which has no keys.")
    elif last.endswith("+"):
        node[last[:-1]] = [
            *_as_list(node.get(last[:-1])),
            *deepcopy(value if isinstance(value, list) else [value]),
        ]
    else:
        node[last] = merged(node.get(last), value)


def merged(old: Any, new: Any) -> Any:
    """Return ``new`` laid over ``old``: mappings key by key, unless they name another class."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return deepcopy(new)
    if "class_path" in new and new["class_path"] != old.get("class_path"):
        return deepcopy(new)
    out = dict(old)
    for key, value in new.items():
        out[key] = merged(out.get(key), value)
    return out


def plain_key(path: tuple[str | int, ...]) -> str:
    """Return the dotted key a user would write for a path through a config (without ``init_args``)."""
    return ".".join(str(part) for part in path if part not in ("init_args", "dict_kwargs"))


def dotted_keys(value: Any, key: str = "") -> Iterator[str]:
    """Yield every dotted key below ``value``, as a user would write it; items of lists by class, or else position."""
    if isinstance(value, list):
        names = [_class_name(item) for item in value]
        items = [
            (name if names.count(name) == 1 and name else str(position), item)
            for position, (name, item) in enumerate(zip(names, value, strict=True))
        ]
    else:
        items = list(value.items()) if isinstance(value, dict) else []
    for word, item in items:
        if word in ("init_args", "dict_kwargs"):
            yield from dotted_keys(item, key)
        else:
            inner = f"{key}.{word}" if key else str(word)
            yield inner
            yield from dotted_keys(item, inner)


def _step(node: Any, word: str, shown: str) -> Any:
    node = _arguments(node, word)
    if isinstance(node, list):
        return node[_item(node, word, shown.rpartition(".")[0])]
    if not isinstance(node, dict):
        raise ConfigError(f"`{shown}` cannot be set: what stands there is {node!r}, no mapping.")
    if node.get(word) is None:
        node[word] = {}
    return node[word]


def _arguments(node: Any, word: str) -> Any:
    """Enter a class's ``init_args`` unless ``word`` is one of the class keys themselves."""
    if isinstance(node, dict) and "class_path" in node and word not in _CLASS_KEYS:
        if node.get("init_args") is None:
            node["init_args"] = {}
        return node["init_args"]
    return node


def _item(items: list[Any], word: str, shown: str) -> int:
    """Return the index of the list item called ``word``: a number, or the last part of its class path."""
    if word.isdigit() and int(word) < len(items):
        return int(word)
    names = [_class_name(item) for item in items]
    if names.count(word) == 1:
        return names.index(word)
    raise ConfigError(
        f"the list `{shown}` has no item `{word}`.{did_you_mean(word, [n for n in names if n])}"
    )


def _class_name(item: Any) -> str:
    """Return the last part of the class path of a list's item, or an empty text."""
    return str(item.get("class_path", "")).rpartition(".")[2] if isinstance(item, dict) else ""


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
