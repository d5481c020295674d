"""``vilau generate MODEL PROMPT...``: pictures, or clips with ``--video``, drawn from prompts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps import beginnings
from vilau.apps.common import (
    add_model,
    add_out,
    add_seed,
    at_least_one,
    check_text,
    make_parser,
    model_folder,
    not_negative,
    note,
    open_model,
    position_bar,
    positive,
    say,
    share,
    whole,
)
from vilau.apps.files import check_free, read_lines, slug, write_png, written
from vilau.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("gif", "mp4", "png")
FRAMES, FPS = 8, 4.0
SHEET, RECORD = "contact-sheet.png", "prompts.json"
LARGEST_SHEET = 100
"""Pictures on the contact sheet; the files themselves are not limited."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "generate",
        "draw pictures or clips from prompts",
        more="Writes a PNG per picture (with --video a GIF and an MP4 per clip), a contact sheet, and "
        "prompts.json with the prompt and seed of each and all settings. Each picture has a seed of its "
        "own, made from --seed and its number, so it does not depend on the batch it is drawn in. "
        "Temperature, top-k and top-p may hold a value for each residual depth: --top-k 900,300,100,50.",
        example='vilau generate runs/quickstart/aligned/finetune "a red circle" "two stars" --num 4',
    )
    add_model(parser)
    parser.set_defaults(spill="prompt")
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="*", help='what to draw; "" draws anything'
    )
    parser.add_argument("--prompts", metavar="FILE", help="a text file, one prompt per line")
    parser.add_argument(
        "--num", type=at_least_one, default=1, help="pictures per prompt (default: 1)"
    )
    parser.add_argument("--video", action="store_true", help="draw clips instead of pictures")
    _add_sampling(parser)
    add_seed(parser)
    parser.add_argument(
        "--batch-size", type=at_least_one, default=8, help="drawn at once (default: 8)"
    )
    _add_video(parser)
    beginnings.add_options(parser)
    add_out(parser, "generated")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance-scale",
        type=not_negative,
        default=3.0,
        help="how strongly the prompt is followed; 1 is the model alone (default: 3)",
    )
    parser.add_argument(
        "--guidance-start",
        type=not_negative,
        metavar="SCALE",
        help="guidance scale of the first position, from where it grows evenly to --guidance-scale at the "
        "last (default: the same everywhere)",
    )
    parser.add_argument(
        "--temperature",
        type=by_depth(not_negative),
        default=1.0,
        help="below 1 likelier codes; 0 always the likeliest (default: 1)",
    )
    parser.add_argument(
        "--top-k",
        type=by_depth(whole),
        default=900,
        help="of so many likeliest codes; 0: all (default: 900)",
    )
    parser.add_argument(
        "--top-p",
        type=by_depth(share),
        default=0.96,
        help="of this share of probability (default: 0.96)",
    )
    parser.add_argument(
        "--negative-prompt",
        metavar="TEXT",
        help="what guidance leads away from (default: what the model read in the place of dropped captions)",
    )


def _add_video(parser: argparse.ArgumentParser) -> None:
    # None where nothing was asked for, so that what has no effect can be refused.
    parser.add_argument("--frames", type=at_least_one, help=f"frames of a clip (default: {FRAMES})")
    parser.add_argument(
        "--fps", type=positive, help=f"frames per second of a clip (default: {FPS:g})"
    )
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="of a clip: gif, mp4, png (a strip), separated by commas (default: gif,mp4)",
    )


@dataclass(frozen=True)
class Drawing:
    """One picture or clip to be made."""

    name: str
    prompt: str
    index: int
    """Which of the prompt's pictures."""
    seed: int


def run(args: argparse.Namespace) -> int:
    """Draw what was asked for; returns the exit code. Raises the errors of ``vilau.errors``."""
    _settle_clip(args)
    drawings = list(_drawings(_prompts(args), args))
    formats = _formats(args) if args.video else ["png"]
    beginnings.check(args)
    out = Path(args.out).expanduser()
    check_free(_planned(out, drawings, formats), force=args.force)
    model = open_model(args)
    _check_depths(args, model.tokenizer.spec.depth)
    settings, pictures = _settings(model, args), []
    batches = [drawings[i : i + args.batch_size] for i in range(0, len(drawings), args.batch_size)]
    with position_bar("drawing", len(batches)) as bar:
        for number, batch in enumerate(batches):
            drawn = _draw(model, batch, {**settings, "progress": bar(number)}, video=args.video)
            for drawing, picture in zip(batch, drawn, strict=True):
                _write(out, drawing, picture, formats, args)
                pictures.append(picture)
    _write_sheet(out / SHEET, drawings, pictures, video=args.video)
    with written(out / RECORD) as part:
        record = _record(args, drawings, formats)
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(str(out / SHEET))
    say(str(out / RECORD))
    return 0


def by_depth(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader for argparse: of one value, or of one per residual depth between commas."""

    def values(text: str) -> Any:
        return [read(part.strip()) for part in text.split(",")] if "," in text else read(text)

    return values


def _settle_clip(args: argparse.Namespace) -> None:
    """Refuse what is of a clip where none is drawn, else give what was left out its default."""
    for name in ("frames", "fps", "formats"):
        if getattr(args, name) is not None and not args.video:
            raise ConfigError(f"--{name} is of a clip; write --video too, or leave it out.")
    args.frames = FRAMES if args.frames is None else args.frames
    args.fps = FPS if args.fps is None else args.fps


def _check_depths(args: argparse.Namespace, depth: int) -> None:
    """Raise ``ConfigError`` as the model would, by the names of the command line."""
    for name in ("temperature", "top_k", "top_p"):
        values = getattr(args, name)
        if isinstance(values, list) and len(values) != depth:
            raise ConfigError(
                f"--{name.replace('_', '-')} holds {len(values)} values for residual depth {depth}; write {depth} "
                "values, or one number for all depths."
            )


def _prompts(args: argparse.Namespace) -> list[str]:
    for prompt in args.prompt:
        check_text("the prompt", prompt)
    check_text("--negative-prompt", args.negative_prompt or "")
    prompts = [*args.prompt, *(read_lines(args.prompts, "prompt") if args.prompts else [])]
    if not prompts:
        raise ConfigError("there is no prompt; write one behind the model, or --prompts FILE.")
    return prompts


def _drawings(prompts: Sequence[str], args: argparse.Namespace) -> Iterator[Drawing]:
    # Imported here: the generation room loads torch, and --help must answer at once.
    from vilau.generation.sampling import image_seed

    digits = max(3, len(str(len(prompts) * args.num - 1)))
    for number in range(len(prompts) * args.num):
        prompt = prompts[number // args.num]
        name = f"{number:0{digits}d}-{slug(prompt)}"
        yield Drawing(name, prompt, number % args.num, image_seed(args.seed, number))


def _formats(args: argparse.Namespace) -> list[str]:
    """The forms a clip is written in; MP4 is left out where it cannot be and was not asked for."""
    from vilau.data.media.video import EXTRA, import_av

    if args.formats is None:
        try:
            import_av("MP4")
        except DataError:
            note(f"clips are written as GIF alone: MP4 needs the package PyAV ({EXTRA}).")
            return ["gif"]
        return ["gif", "mp4"]
    formats = list(dict.fromkeys(word.strip().lower() for word in args.formats.split(",")))
    for word in formats:
        if word not in FORMATS:
            raise ConfigError(
                f"--formats holds {word!r}; write {', '.join(FORMATS)}, separated by commas."
            )
    if "mp4" in formats:
        import_av("--formats mp4")
    return formats


def _planned(out: Path, drawings: Sequence[Drawing], formats: Sequence[str]) -> list[Path]:
    files = [out / f"{drawing.name}.{form}" for drawing in drawings for form in formats]
    return [*files, out / SHEET, out / RECORD]


def _settings(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What every batch is drawn with."""
    settings: dict[str, Any] = {
        "guidance_scale": args.guidance_scale,
        "guidance_start": args.guidance_start,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "negative_prompt": args.negative_prompt,
    }
    if args.video:
        settings["num_frames"] = args.frames
    settings |= beginnings.settings(model, args)
    return settings


def _draw(model: Any, batch: Sequence[Drawing], settings: dict[str, Any], *, video: bool) -> Tensor:
    """Draw a batch: uint8 ``(B, 3, H, W)``, or ``(B, F, 3, H, W)`` of clips, on the CPU."""
    from vilau.layers.pixels import to_uint8

    prompts, seeds = [d.prompt for d in batch], [d.seed for d in batch]
    draw = model.generate_videos if video else model.generate_images
    return to_uint8(draw(prompts, seed=seeds, **settings)).cpu()


def _write(
    out: Path, drawing: Drawing, picture: Tensor, formats: Sequence[str], args: argparse.Namespace
) -> None:
    from vilau.data.media.video_files import strip, write_gif, write_mp4

    for form in formats:
        path = out / f"{drawing.name}.{form}"
        if form == "png":
            write_png(path, strip(picture) if args.video else picture)
        else:
            writer = write_gif if form == "gif" else write_mp4
            with written(path) as part:
                writer(part, picture, fps=args.fps)
        say(str(path))


def _write_sheet(
    path: Path, drawings: Sequence[Drawing], pictures: Sequence[Tensor], *, video: bool
) -> None:
    from vilau.callbacks.sheets import captioned
    from vilau.data.media.video_files import strip

    shown = [strip(p) if video else p for p in pictures[:LARGEST_SHEET]]
    captions = [drawing.prompt for drawing in drawings[:LARGEST_SHEET]]
    write_png(path, captioned(shown, captions, columns=1 if video else 4))


def _record(
    args: argparse.Namespace, drawings: Sequence[Drawing], formats: Sequence[str]
) -> dict[str, Any]:
    from vilau import __version__

    names = (
        "guidance_scale", "guidance_start", "temperature", "top_k", "top_p", "negative_prompt", "seed", "dtype",
    )  # fmt: skip
    settings = {name: getattr(args, name) for name in names}
    if args.video:
        settings |= {"num_frames": args.frames, "fps": args.fps}
    settings |= beginnings.record(args)
    rows = []
    for drawing in drawings:
        row = asdict(drawing)
        name = row.pop("name")
        rows.append({"files": [f"{name}.{form}" for form in formats], **row})
    return {
        "model": str(model_folder(args.model)),
        "vilau": __version__,
        "settings": settings,
        "clips" if args.video else "pictures": rows,
    }
