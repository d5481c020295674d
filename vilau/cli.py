"""The commands ``lightning`` and ``vilau``: run studies, run single stages, use trained models.

Nothing heavy is imported before a verb needs it, so ``--help``, ``plan`` and ``list`` answer at
once. A verb of our own exits with 0, 1 (a crash, or a gate that stayed shut), 2 (a mistake of the
user's, told in one sentence) or 130 (Ctrl-C).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from vilau.apps.memory import memory_told
from vilau.errors import ConfigError, VilauError
from vilau.study import session
from vilau.study.plan import Options
from vilau.study.processes import die_with_parent
from vilau.study.schema import COMMANDS
from vilau.study.suggest import did_you_mean

APPS: tuple[tuple[str, str, str], ...] = (
    ("chat", "vilau.apps.chat", "ask a model about images, a clip, or in words alone"),
    ("generate", "vilau.apps.generate", "draw pictures or clips from prompts"),
    ("reconstruct", "vilau.apps.reconstruct", "show what each residual depth of a tower adds"),
    ("encode", "vilau.apps.encode", "turn images into a file of codes"),
    ("decode", "vilau.apps.decode", "turn a file of codes into images"),
    ("classify", "vilau.apps.classify", "tell which of some classes an image shows (zero-shot)"),
    (
        "convert",
        "vilau.apps.convert",
        "write a model or a tower in another layout or number format",
    ),
    ("eval", "vilau.apps.eval", "measure a model on published benchmarks or their drawn twins"),
    ("compare", "vilau.apps.compare", "print the numbers of finished runs side by side"),
    ("data", "vilau.apps.data", "turn images with captions into shards, and look at them"),
)
"""Verbs of ``vilau.apps``: (verb, module, one line of help). A module has
``add_parser(subparsers) -> None`` and ``run(args) -> int``; it is imported for its own verb only. With
``set_defaults(spill="name")`` its positional ``name`` also takes words that stand behind options."""

OPTION = re.compile(r"--[A-Za-z][\w-]*")
"""An option in a verb's line of usage: where argparse tells openly which there are."""
OTHER_PACKAGE = "lightning_sdk.cli.entrypoint"
"""Who owns the other subcommands of ``lightning``, where it is installed: ``main_cli()`` there."""


@dataclass(frozen=True)
class Verb:
    """A verb over study files: its help, its arguments and what it does."""

    text: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    handler: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    die_with_parent()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except VilauError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        app = bool({verb for verb, _, _ in APPS} & set(arguments[:1]))
        same = "the same command" + (" without --fresh" if "--fresh" in arguments else "")
        words = "stopped." if app else f"stopped; {same} goes on from here."
        print(f"\n{words}", file=sys.stderr, flush=True)
        return 130


def _dispatch(arguments: list[str]) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), None)
    if verb is not None and verb not in _verbs():
        return _other(verb, arguments)
    parser, subparsers = _parser(verb)
    parsed, unknown = parser.parse_known_args(arguments)
    if not hasattr(parsed, "handler"):
        parser.print_help()
        return 2
    # argparse fills positionals once: words behind a later option come back as unknown.
    spill = getattr(parsed, "spill", None)
    if spill is not None:
        getattr(parsed, spill).extend(word for word in unknown if not word.startswith("-"))
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        known = [] if verb is None else OPTION.findall(subparsers[verb].format_usage())
        raise ConfigError(f"unknown argument `{unknown[0]}`.{did_you_mean(unknown[0], known)}")
    return int(parsed.handler(parsed))


def _other(verb: str, arguments: list[str]) -> int:
    """Hand a subcommand that is not ours to the package that owns it, if it is installed."""
    package = OTHER_PACKAGE.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"there is no verb `{verb}`.{did_you_mean(verb, _verbs())}")
    sys.argv[1:] = arguments
    return int(importlib.import_module(OTHER_PACKAGE).main_cli() or 0)


def _verbs() -> list[str]:
    return [*VERBS, *COMMANDS, *(verb for verb, _, _ in APPS)]


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are sentences like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help.")


def _parser(verb: str | None) -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    called = Path(sys.argv[0]).stem
    parser = _Parser(
        prog=called if called in ("lightning", "vilau") else "vilau",
        description="Train, measure and compare unified vision-language models.",
        epilog="example: lightning run experiments/quickstart.yaml",
    )
    parser.add_argument("--version", action="version", version=f"vilau {_version()}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB")
    for name, spec in VERBS.items():
        sub = subparsers.add_parser(
            name, help=spec.text, description=spec.text, epilog=f"example: {spec.example}"
        )
        spec.arguments(sub)
        sub.set_defaults(handler=spec.handler)
    for name in COMMANDS:
        text = f"{name} one stage from its config file (the process `run` starts for each stage)"
        example = f"vilau {name} --config runs/.store/tower-4b933f30/run.yaml"
        sub = subparsers.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        _stage_arguments(sub)
        sub.set_defaults(handler=_stage, verb=name)
    for name, module, text in APPS:
        if name == verb:
            app = importlib.import_module(module)
            app.add_parser(subparsers)
            subparsers.choices[name].set_defaults(handler=_app(app.run))
        else:
            subparsers.add_parser(name, help=text)
    return parser, dict(subparsers.choices)


def _version() -> str:
    try:
        return metadata.version("vilau")
    except metadata.PackageNotFoundError:
        return "(not installed)"


# ---------------------------------------------------------------------- arguments


def _study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "study", nargs="+", metavar="STUDY", help="study files (experiments/*.yaml)"
    )
    parser.set_defaults(spill="study")
    parser.add_argument("--scale", help="sizes: tiny, small, paper (default: the study's)")
    parser.add_argument(
        "--machine", default="cpu", help="where to run: cpu, gpu, fsdp_8gpu (default: cpu)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="STAGE.KEY=VALUE",
        help="change settings, e.g. --set tower.model.contrastive_weight=0.5",
    )
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="seeds (default: the study's)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants alone"
    )
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")


def _runs_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", default="runs", metavar="DIR", help="runs folder (default: runs)")


def _stored_arguments(parser: argparse.ArgumentParser) -> None:
    _study_arguments(parser)
    _runs_argument(parser)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _stored_arguments(parser)
    parser.add_argument(
        "--jobs", metavar="N", help="runs side by side (default: on the CPU one per core, else 1)"
    )
    parser.add_argument("--fresh", action="store_true", help="erase the study's runs, train anew")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", help="folder of studies (default: experiments)")
    parser.add_argument("--runs", metavar="DIR", help="runs folder (default: runs)")


def _stage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="a stage config (run.yaml)")
    parser.add_argument("--fresh", action="store_true", help="erase what the run left, start anew")


def _options(args: argparse.Namespace) -> Options:
    return Options(
        scale=args.scale,
        machine=args.machine,
        overrides=tuple(args.set),
        seeds=None if args.seeds is None else _seeds(args.seeds),
        only=tuple(args.only),
        until=args.until,
    )


def _seeds(words: Sequence[str]) -> tuple[int, ...]:
    seeds = tuple(_whole("--seeds", word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(words)}: name each seed once.")
    return seeds


def _whole(flag: str, text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{flag} {text}: write a whole number from {least} on.")
    return int(text)


# ---------------------------------------------------------------------- what the verbs do


def _run(args: argparse.Namespace) -> int:
    jobs = None if args.jobs is None else _whole("--jobs", args.jobs, least=1)
    options = _options(args)
    return session.run_studies(args.study, options, runs=args.runs, jobs=jobs, fresh=args.fresh)


def _check(args: argparse.Namespace) -> int:
    session.check_studies(args.study, _options(args))
    return 0


def _plan(args: argparse.Namespace) -> int:
    print(session.plans_text(args.study, _options(args), runs=args.runs), end="\n\n")
    return 0


def _table(args: argparse.Namespace) -> int:
    for text in session.table_studies(args.study, _options(args), runs=args.runs):
        print(text, end="\n\n")
    return 0


def _list(args: argparse.Namespace) -> int:
    print(session.list_studies(args.folder, runs=args.runs))
    return 0


def _app(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def handler(args: argparse.Namespace) -> int:
        with memory_told(args):
            return run(args)

    return handler


def _stage(args: argparse.Namespace) -> int:
    return session.stage(args.verb, args.config, fresh=args.fresh)


_EXAMPLE = "experiments/ablate_contrastive.yaml"
VERBS: dict[str, Verb] = {
    "run": Verb(
        "train and measure studies; finished runs are kept, cut ones resumed",
        f"lightning run {_EXAMPLE} --scale tiny --seeds 0 1 2",
        _run_arguments,
        _run,
    ),
    "check": Verb(
        "parse and build every stage on the meta device, without training or network",
        f"lightning check {_EXAMPLE} --scale paper",
        _study_arguments,
        _check,
    ),
    "plan": Verb(
        "print what a study would run, and what is finished",
        f"lightning plan {_EXAMPLE}",
        _stored_arguments,
        _plan,
    ),
    "table": Verb(
        "print a study's table from its finished runs and write its report",
        f"lightning table {_EXAMPLE}",
        _stored_arguments,
        _table,
    ),
    "list": Verb(
        "list studies and finished runs", "lightning list experiments", _list_arguments, _list
    ),
}
