"""``vilau data tokenize SRC DST --tower PATH``: encode every image of a set once, for training from codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.common import TOKENIZER_HELP, add_opening, at_least_one
from vilau.apps.files import resumable, shard_folder
from vilau.errors import ConfigError

if TYPE_CHECKING:
    from vilau.data.codes import Coding
    from vilau.data.shards import ShardSet
    from vilau.data.world_data import WorldSpec
    from vilau.models.interface import VisualTokenizer

SPLITS = ("train", "val", "test", "comp")


def add_parser(verbs: Any) -> None:
    """Add the verb to those of ``vilau data``."""
    parser = verbs.add_parser(
        "tokenize",
        help="encode every image of a prepared set once with a frozen tower, or another image tokenizer",
        description="Encode every image of a prepared set once with a frozen tower. DST has the codes where SRC has "
        "images, and the same texts; pretraining and fine-tuning read it as data.path, with that tower alone. Codes "
        "are of the middle square, scaled to the tower's size: no random crop acts on them. What a run that was "
        "stopped had finished is kept: the same command goes on from there.",
        epilog="example: vilau data tokenize shards/photos shards/photos-codes --tower runs/quickstart/aligned/tower",
    )
    parser.add_argument("src", metavar="SRC", help="folder that vilau data prepare wrote, or world")
    parser.add_argument("dst", metavar="DST", help="folder to write")
    parser.add_argument("--tower", required=True, metavar="PATH", help=TOKENIZER_HELP)
    add_opening(parser)
    parser.add_argument(
        "--batch-size", type=at_least_one, default=32, help="encoded at once (default: 32)"
    )
    drawn = parser.add_argument_group("where SRC is world")
    drawn.add_argument("--split", choices=SPLITS, help="which split (default: train)")
    drawn.add_argument(
        "--world",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="which drawn world, as data.world of a study: level=easy num_train=50000 num_objects=1,3",
    )


def run(args: argparse.Namespace) -> int:
    """Encode and write; returns the exit code."""
    # Imported here: the command line must answer at once.
    from vilau.apps.common import dtype_of, open_tokenizer, say
    from vilau.data.preparing.tokenize import tokenize, unfinished
    from vilau.data.shards import MANIFEST, refuse_existing

    folder = Path(args.dst).expanduser()
    if not (folder / MANIFEST).exists():
        refuse_existing(folder)
    _check_world(args)
    wanted, args.dtype = dtype_of(args.dtype), None
    tower = open_tokenizer(args.tower, args)
    identity = tower.identity()  # of the weights as they are stored, whatever encodes
    tower = tower.to(wanted)
    source, coding = _source(args, tower), _coding(args.tower, tower, identity)
    with resumable(folder, lambda: unfinished(source, folder, coding)):
        result = tokenize(source, folder, coding, _encoder(tower), batch_size=args.batch_size)
    say(result.summary())
    return 0


def _source(args: argparse.Namespace, tower: VisualTokenizer) -> ShardSet:
    from vilau.data.shards import ShardSet
    from vilau.data.world_data import WORLD_PATH, world_set

    if args.src == WORLD_PATH:
        size = tower.spec.image_size
        return world_set(world_spec(args.world), args.split or "train", image_size=size)
    return ShardSet(shard_folder(args.src))


def _check_world(args: argparse.Namespace) -> None:
    if args.src != "world":
        for option, given in (("--split", args.split), ("--world", args.world)):
            if given:
                raise ConfigError(
                    f"{option} is given, but SRC is {args.src}, which is taken whole; leave it out, or write world."
                )
        return
    world_spec(args.world)


def _coding(path: str, tower: Any, identity: str) -> Coding:
    from vilau.data.codes import Coding

    spec, weight = tower.spec, next(tower.parameters())
    return Coding(
        tower=identity,
        encoded_by=path,
        dtype=str(weight.dtype).removeprefix("torch."),
        positions=spec.num_positions,
        depth=spec.depth,
        codebook_size=spec.codebook_size,
        image_size=spec.image_size,
    )


def _encoder(tower: Any) -> Callable[[Any], Any]:
    """The tower as a function from uint8 ``(B, H, W, 3)`` to codes ``(B, P, D)``, of numpy."""
    import torch

    from vilau.apps.common import moved
    from vilau.layers.pixels import to_float

    def encode(pixels: Any) -> Any:
        # Laid out as training lays images out: another layout may round otherwise.
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            return tower.encode(moved(to_float(images), tower)).cpu().numpy()

    return encode


# ---------------------------------------------------------------------- which drawn world


def _range(text: str) -> tuple[int, int]:
    low, high = text.split(",")
    return int(low), int(high)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


WORLD_KEYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "level": (str, "a level"),
    "num_train": (int, "a number of scenes"),
    "num_val": (int, "a number of scenes"),
    "num_test": (int, "a number of scenes"),
    "num_objects": (_range, "two numbers as 1,3"),
    "sizes": (_words, "sizes as small,large"),
    "one_object_share": (float, "a share from 0 to 1"),
    "held_out": (str, "exclude, only or any"),
    "seed": (int, "a whole number"),
}
"""Fields of ``WorldSpec``: how a value is read, and what it is called."""


def world_spec(words: list[str]) -> WorldSpec:
    """Read ``KEY=VALUE`` words as the drawn world that ``data.world`` would name; raises ``ConfigError``."""
    from vilau.data.world_data import WorldSpec
    from vilau.study.suggest import did_you_mean

    fields: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in WORLD_KEYS:
            raise ConfigError(
                f"--world holds {word}, which is no setting of the drawn world; write KEY=VALUE."
                f"{did_you_mean(key, WORLD_KEYS)}"
            )
        read, wanted = WORLD_KEYS[key]
        try:
            if not equals:
                raise ValueError(word)
            fields[key] = read(value)
        except ValueError:
            raise ConfigError(f"--world holds {word}; write {key}= and {wanted}.") from None
    return WorldSpec(**fields)
