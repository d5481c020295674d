"""``vilau eval --suite table2 --model MODEL``: published benchmarks, or the drawn world's twins of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vilau.apps.common import (
    MODEL_HELP,
    add_opening,
    add_pictures,
    add_seed,
    at_least_one,
    make_parser,
    not_negative,
    open_model,
    say,
)
from vilau.apps.evaluation.results import keep, recorded
from vilau.apps.evaluation.suites import (
    DRAWINGS,
    QUESTIONS,
    SUITES,
    Listed,
    check_hidden,
    check_ocr,
    chosen_names,
    known_benchmarks,
    not_in,
)
from vilau.errors import ConfigError, DataError

DATA_VARIABLE = "VILAU_BENCHMARKS"


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "eval",
        "measure a model on published benchmarks, or on the drawn world's twins",
        more="Says for each benchmark what of its data is not on this machine and where to put it, and runs those "
        "that are there; the exit code is 1 where some were not. Answers and drawings are kept as they come: "
        "the same command goes on after a stop. Benchmarks that another tool scores are drawn into the files it "
        "reads, and its command is printed.",
        example="vilau eval --suite table2 --model runs/quickstart/aligned/finetune --world",
    )
    parser.add_argument("--suite", metavar="NAME", help=f"a paper's table: {', '.join(SUITES)}")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="single benchmarks, e.g. pope mme, or world_pope; with --suite these too",
    )
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    add_opening(parser)
    parser.add_argument(
        "--world", action="store_true", help="the drawn world's twins; needs no data"
    )
    parser.add_argument(
        "--level",
        default="base",
        help="level of the drawn world the model was trained in (default: base)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help=f"folder with a folder per benchmark (default: ${DATA_VARIABLE}, else data/benchmarks)",
    )
    parser.add_argument(
        "--out", default="evaluation", metavar="DIR", help="folder to write (default: evaluation)"
    )
    parser.add_argument(
        "--check", action="store_true", help="only say what is there and what is missing"
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--style",
        choices=("lmms", "llava"),
        default="lmms",
        help="whose scripts read the answers (default: lmms)",
    )
    parser.add_argument(
        "--limit",
        type=at_least_one,
        metavar="N",
        help="only N questions or prompts of each, and those that count only together with the last",
    )
    parser.add_argument("--batch-size", type=at_least_one, default=8, help="at once (default: 8)")
    parser.add_argument(
        "--max-new-tokens", type=at_least_one, help="longest answer (default: the benchmark's own)"
    )
    parser.add_argument(
        "--guidance-scale",
        type=not_negative,
        default=3.0,
        help="of drawings; 1 is the model alone (default: 3)",
    )
    parser.add_argument(
        "--floors",
        action="store_true",
        help="also write FID's floors: real pictures at the model's size, and rebuilt",
    )
    parser.add_argument(
        "--templates",
        metavar="NAME",
        help="ImageNet's prompts: openai, CLIP's 80; photos, its best eight; or a file with one per line "
        "(default: openai)",
    )
    parser.add_argument(
        "--ocr",
        action="store_true",
        help="put OCR tokens into the questions of TextVQA, as LLaVA does (about ten points)",
    )
    parser.add_argument(
        "--without-images",
        action="store_true",
        help="ask the questions without their pictures and videos, a blind baseline: what the language model alone "
        "can tell, at the least, for it may never have been asked so",
    )
    parser.add_argument(
        "--rescore",
        nargs="+",
        metavar="FILE",
        help="score files of predictions again, of the one benchmark named",
    )
    parser.add_argument(
        "--write-lmms-tasks",
        metavar="DIR",
        help="write the twins as tasks for `lmms_eval --include_path DIR`",
    )
    add_pictures(parser)
    parser.set_defaults(fit=None)  # squash as published; ImageNet's are cropped
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; returns the exit code. Raises the errors of ``vilau.errors``."""
    if args.rescore or args.write_lmms_tasks:
        for option in ("ocr", "without_images"):
            if getattr(args, option):
                raise ConfigError(
                    f"--{option.replace('_', '-')} is for asking; leave it out with --rescore and --write-lmms-tasks."
                )
        return _rescore(args) if args.rescore else _write_tasks(args)
    world = args.world or any(name.startswith("world_") for name in args.benchmarks)
    names = chosen_names(args.suite, args.benchmarks, world=world)
    _check_asked(names, args)
    for lacking in not_in(args.suite, world=world) if args.suite else ():
        why = "it has no twin" if world else "its data are not read here"
        say(f"{args.suite}: the column {lacking} stays empty, {why}")
    if world:
        return _run_world(names, args)
    listed = known_benchmarks(ocr=args.ocr)
    chosen = [listed[name] for name in names]
    data = Path(args.data or os.environ.get(DATA_VARIABLE) or "data/benchmarks").expanduser()
    if data.exists() and not data.is_dir():
        raise DataError(f"{data} is a file; give the folder that holds a folder per benchmark.")
    ready = [one for one in chosen if tell(one, data)]
    if args.check or not ready:
        return 0 if len(ready) == len(chosen) else 1
    _check_model(args)
    _check_style([one.name for one in ready if one.kind == QUESTIONS], args)
    out = Path(args.out).expanduser()
    with recorded(out, args):
        model = open_model(args) if any(one.kind != "zero-shot" for one in ready) else None
        for one in ready:
            _run_one(one, data / one.folder, model, out, args)
    return 0 if len(ready) == len(chosen) else 1


def _check_asked(names: Sequence[str], args: argparse.Namespace) -> None:
    """Raise ``ConfigError`` where an option of asking means none, or not all, of the benchmarks."""
    if args.ocr:
        check_ocr(names)
    if args.without_images:
        check_hidden(names)
        for name in ("fit", "quirks", "ocr"):
            if getattr(args, name):
                raise ConfigError(
                    f"--{name} tells what is in images, or how they are shown, and --without-images shows none; leave "
                    "out one of the two."
                )


def tell(one: Listed, data: Path) -> bool:
    """Say whether a benchmark's data are there, else what is missing and where it belongs."""
    missing = one.missing(data / one.folder)
    if not missing:
        say(f"{one.name}: {one.title} is there" + (f" ({one.remark})" if one.remark else ""))
        return True
    paths = ", ".join(str(path) for path in missing)
    say(f"{one.name}: {one.title} is missing; put these of its own files there: {paths}")
    if one.scorer:
        say(f"{one.name}: scored by {one.scorer}, in an environment of its own")
    return False


def _run_one(one: Listed, folder: Path, model: Any, out: Path, args: argparse.Namespace) -> None:
    from vilau.apps.evaluation.asking import ask_benchmark
    from vilau.apps.evaluation.drawing import draw_benchmark
    from vilau.apps.evaluation.zero_shot import classify_imagenet
    from vilau.data.published.catalogue import question_benchmarks
    from vilau.metrics.answers import without_judge

    if one.kind == DRAWINGS:
        say(f"{one.name}: score the drawings with")
        for line in draw_benchmark(model, one.name, folder, out, args):
            say(f"  {line}")
        return
    if one.kind == QUESTIONS:
        benchmark = question_benchmarks(ocr=args.ocr)[one.name]
        scores, passport = ask_benchmark(model, benchmark, folder, out, args)
    else:
        scores, passport = classify_imagenet(folder, args)
    shown = {
        f"{without_judge(one.name)}/{name}": {
            "value": value,
            "remark": one.remark,
            "style": args.style,
            "limit": args.limit,
            "passport": asdict(passport),
        }
        for name, value in scores.items()
    }
    keep(out, shown)


def _run_world(names: Sequence[str], args: argparse.Namespace) -> int:
    from vilau.apps.evaluation.twins import run_twins
    from vilau.metrics.answers import TWINS

    for name in names:
        say(f"{name}: drawn, nothing is missing")
    if args.check:
        return 0
    _check_model(args)
    _check_world(args)
    _check_style([name for name in names if name in TWINS], args)
    out = Path(args.out).expanduser()
    with recorded(out, args, world=True):
        run_twins(names, out, args)
    return 0


def _check_model(args: argparse.Namespace) -> None:
    if not args.model:
        raise ConfigError(f"--model is missing; give the {MODEL_HELP}.")


def _check_world(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing: twins are drawn at the model's size and answered in float32."""
    from vilau.data.names import nearest
    from vilau.world.scene import LEVELS

    if args.level not in LEVELS:
        raise ConfigError(f"--level is '{args.level}'. {nearest(args.level, LEVELS)}")
    for name in ("dtype", "fit", "quirks", "allow_pickle", "data"):
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            more = "; convert the model first (vilau convert)" if name == "allow_pickle" else ""
            raise ConfigError(
                f"{option} is for the published benchmarks, not for the drawn world's twins; leave it out{more}."
            )


def _check_style(names: Iterable[str], args: argparse.Namespace) -> None:
    """Raise ``ConfigError`` where the answers to one are not read in ``--style``, before the others are asked."""
    from vilau.metrics.answers import answer_metric, unjudged

    for name in names:
        answer_metric(unjudged(name), args.style)


def _rescore(args: argparse.Namespace) -> int:
    from vilau.metrics.answers import answer_metric, unjudged, without_judge
    from vilau.metrics.predictions import score_predictions

    if len(args.benchmarks) != 1:
        raise ConfigError(
            f"--rescore needs the one benchmark its files are of, but --benchmarks holds {len(args.benchmarks)}."
        )
    name = args.benchmarks[0]
    scores = score_predictions(args.rescore, answer_metric(unjudged(name), args.style))
    for score, value in scores.items():
        say(f"{without_judge(name)}/{score}  {value:.4f}")
    return 0


def _write_tasks(args: argparse.Namespace) -> int:
    from vilau.adapters.task_folder import SCORED, write_tasks
    from vilau.apps.evaluation.twins import twin_data

    names = args.benchmarks or list(SCORED)
    size = open_model(args).reading_size if args.model else 64
    data = twin_data(names, size, args)
    data.setup()
    tasks = ",".join(write_tasks(Path(args.write_lmms_tasks), data.sets))
    say(
        f"python -m lmms_eval --model vilau --model_args pretrained=MODEL --include_path {args.write_lmms_tasks} "
        f"--tasks {tasks}"
    )
    return 0
