"""``vilau data prepare SRC DST``, ``data tokenize`` and ``data show``: user data into shards, codes, and a look."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps import show_data, tokenize
from vilau.apps.common import make_parser, whole
from vilau.apps.files import resumable
from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean

if TYPE_CHECKING:
    from vilau.data.preparing.prepare import Options
    from vilau.data.sources.documents import DocumentLimits


class _Verbs(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Verbs below a verb, of which an unknown one is told as the command line tells its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: dict[str, Any] = self.choices
        self.choices = None  # type: ignore[assignment]  # else argparse complains first

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if values[0] not in self.known:
            raise ConfigError(
                f"there is no verb `data {values[0]}`.{did_you_mean(values[0], self.known)}"
            )
        super().__call__(parser, namespace, values, option_string)


def add_parser(subparsers: Any) -> None:
    """Add the verb ``data`` to the command line."""
    data = make_parser(
        subparsers,
        "data",
        "turn images with captions into shards, and look at them",
        more="Each verb explains itself: vilau data VERB --help.",
        example="vilau data prepare photos/ shards/photos --image-size 256",
    )
    verbs = data.add_subparsers(dest="data_verb", metavar="VERB", title="verbs", action=_Verbs)
    _add_prepare(verbs)
    tokenize.add_parser(verbs)
    show_data.add_parser(verbs)


def _add_prepare(verbs: Any) -> None:
    prepare = verbs.add_parser(
        "prepare",
        help="turn images with captions, conversations, videos, web documents or texts into shards",
        description="SRC: a folder of images with captions (a.jpg and a.txt, or metadata.csv or "
        ".jsonl), what img2dataset wrote (tars, files or parquet), a csv, tsv, jsonl or parquet table, "
        "parquet files with images inside, WebDataset tars, ImageNet, a litdata folder, a LLaVA-style json file "
        "whose answers describe its images, (with --instructions) one of any conversations, (with --classes) a "
        "folder of images per class, (with --videos) a table of videos and captions, (with --interleaved) MMC4's "
        "jsonl files, or (with --texts) txt or jsonl files. "
        "What a run that was stopped had finished is kept: the same command goes on from there.",
        epilog="example: vilau data prepare photos/ shards/photos --image-size 256",
    )
    prepare.add_argument(
        "src", metavar="SRC", help="folder, file or pattern such as d/{000..9}.tar"
    )
    prepare.add_argument("dst", metavar="DST", help="folder to write")
    form = prepare.add_mutually_exclusive_group()
    form.add_argument("--instructions", action="store_true", help="SRC holds conversations")
    form.add_argument(
        "--classes", action="store_true", help="SRC holds a folder of images per class (zero-shot)"
    )
    form.add_argument(
        "--videos", action="store_true", help="SRC is a table of videos and captions (OpenVid)"
    )
    form.add_argument(
        "--interleaved", action="store_true", help="SRC holds documents with images inside (MMC4)"
    )
    form.add_argument("--texts", action="store_true", help="SRC holds text alone")
    prepare.add_argument(
        "--image-folder", help="where the image paths in SRC begin (--interleaved: or the tars lie)"
    )
    prepare.add_argument("--video-folder", help="where the paths of videos begin")
    prepare.add_argument(
        "--frames", type=int, metavar="N", help="frames to keep of a video (default 8)"
    )
    size = prepare.add_mutually_exclusive_group()
    size.add_argument("--image-size", type=int, help="shrink the short side to so many pixels")
    size.add_argument("--keep", action="store_true", help="keep images as they are (default)")
    prepare.add_argument(
        "--workers", type=int, help="processes that read and decode (default: one per core)"
    )
    prepare.add_argument("--seed", type=whole, default=0, help="order of the samples (default 0)")
    prepare.add_argument(
        "--chunk-megabytes", type=float, default=4.0, help="size of the files of DST (default 4)"
    )
    _add_filters(prepare)


def _add_filters(prepare: argparse.ArgumentParser) -> None:
    skipped = prepare.add_argument_group("what is skipped and listed")
    skipped.add_argument(
        "--max-unreadable", type=float, default=0.05, help="largest share to skip (default 0.05)"
    )
    skipped.add_argument(
        "--allow-unpaired",
        action="store_true",
        help="skip images without a caption or with an empty one, and captions without image",
    )
    filters = prepare.add_argument_group("what is left out on purpose, and counted")
    filters.add_argument(
        "--min-side", type=int, default=0, metavar="PIXELS", help="shorter side of an image"
    )
    filters.add_argument(
        "--max-aspect", type=float, metavar="RATIO", help="longer side over the shorter"
    )
    filters.add_argument("--min-caption", type=int, default=0, metavar="CHARACTERS")
    filters.add_argument("--max-caption", type=int, metavar="CHARACTERS")
    filters.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="'COLUMN >= VALUE'",
        help="keep samples of which this holds (>=, <=, >, <, ==, !=); may be given several times",
    )
    filters.add_argument(
        "--max-images",
        type=int,
        metavar="N",
        help="images of a web document (default 6, the first)",
    )
    filters.add_argument(
        "--min-similarity",
        type=float,
        metavar="COSINE",
        help="matched_sim of an image in a web document (default: any)",
    )
    filters.add_argument(
        "--keep-empty-captions", action="store_true", help="keep images whose caption is empty"
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code. Raises the errors of ``vilau.errors``."""
    verbs = {"prepare": _prepare, "tokenize": tokenize.run, "show": show_data.run}
    if args.data_verb is None:
        raise ConfigError(f"vilau data needs a verb; write one of {', '.join(verbs)} behind it.")
    return verbs[args.data_verb](args)


def _prepare(args: argparse.Namespace) -> int:
    # Imported here: the data rooms load torch, and the command line must answer at once.
    from vilau.data.preparing.prepare import prepare, unfinished
    from vilau.data.shards import MANIFEST, refuse_existing
    from vilau.data.sources.forms import find_source

    folder = Path(args.dst).expanduser()
    if not (folder / MANIFEST).exists():
        refuse_existing(folder)
    kind = _kind(args)
    options = _options(args)
    options.check(kind=kind)
    source = find_source(
        args.src,
        kind=kind,
        image_folder=args.image_folder,
        video_folder=args.video_folder,
        limits=_limits(args),
    )
    with resumable(folder, lambda: unfinished(source, folder, options, kind=kind)):
        result = prepare(source, folder, options, kind=kind)
    _print(result.summary())
    return 0


def _kind(args: argparse.Namespace) -> str:
    """The kind of sample that is asked for; raises ``ConfigError`` for an option of another."""
    from vilau.data.sources import forms

    asked = {
        forms.CONVERSATIONS: args.instructions,
        forms.CLASSES: args.classes,
        forms.VIDEOS: args.videos,
        forms.INTERLEAVED: args.interleaved,
        forms.TEXTS: args.texts,
    }
    kind = next((kind for kind, given in asked.items() if given), forms.PAIRS)
    clips, documents = (forms.VIDEOS, forms.CONVERSATIONS), (forms.INTERLEAVED,)
    for name, given, of in (
        ("--video-folder", args.video_folder, clips),
        ("--frames", args.frames, clips),
        ("--max-images", args.max_images, documents),
        ("--min-similarity", args.min_similarity, documents),
    ):
        if given is not None and kind not in of:
            raise ConfigError(
                f"{name} is {given}, but it says nothing of samples of kind {kind}; leave it out, or write "
                f"{' or '.join('--' + one for one in of)}."
            )
    return kind


def _limits(args: argparse.Namespace) -> DocumentLimits:
    from vilau.data.sources.documents import LIMITS, DocumentLimits

    most = LIMITS.max_images if args.max_images is None else args.max_images
    return DocumentLimits(most, args.min_similarity)


def _options(args: argparse.Namespace) -> Options:
    from vilau.data.media.video import NUM_FRAMES
    from vilau.data.preparing.filters import Filters
    from vilau.data.preparing.prepare import Options

    return Options(
        image_size=args.image_size,
        max_unreadable=args.max_unreadable,
        allow_unpaired=args.allow_unpaired,
        workers=args.workers,
        seed=args.seed,
        chunk_bytes=_chunk_bytes(args.chunk_megabytes),
        num_frames=NUM_FRAMES if args.frames is None else args.frames,
        filters=Filters(
            min_side=args.min_side,
            max_aspect=args.max_aspect,
            min_caption=args.min_caption,
            max_caption=args.max_caption,
            where=tuple(args.where),
            keep_empty=args.keep_empty_captions,
        ),
    )


def _chunk_bytes(megabytes: float) -> int:
    if not math.isfinite(megabytes):
        raise ConfigError(f"--chunk-megabytes is {megabytes}; write a number above 0, e.g. 4.")
    return round(megabytes * (1 << 20))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
