"""``vilau chat MODEL``: questions about images, clips or nothing at all, and answers."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vilau.apps.common import (
    add_model,
    add_pictures,
    add_seed,
    at_least_one,
    check_text,
    make_parser,
    not_negative,
    not_utf8,
    note,
    open_model,
    read_for,
    read_frames,
    say,
    share,
)
from vilau.apps.files import find_images
from vilau.apps.memory import memory_told
from vilau.errors import ConfigError, DataError, VilauError

if TYPE_CHECKING:
    from torch import Tensor

MARK = "<image>"
"""Where an image stands in a text."""
HELP = "/image FILE...  /video FILE  /reset (forget everything)  /help  /quit"


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "chat",
        "ask a model about images, a clip, or in words alone",
        more="With --prompt one answer is printed. Without it a conversation begins, on a terminal or from a "
        f"pipe: each line is a question, or one of the commands {HELP}. {MARK} in a text says where an image, "
        "or a frame of a clip, stands; without it images and clips come first.",
        example='vilau chat runs/quickstart/aligned/finetune --image a.png --prompt "what is it ?"',
    )
    add_model(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--image", metavar="FILE", nargs="+", action="extend", default=[], help="images, in order"
    )
    what.add_argument(
        "--video", metavar="FILE", help="a video file, a GIF or a folder of frames: 8 frames of it"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="one question, then the end")
    parser.add_argument(
        "--max-new-tokens", type=at_least_one, default=128, help="longest answer (default: 128)"
    )
    parser.add_argument(
        "--temperature",
        type=not_negative,
        default=0.0,
        help="0: the likeliest answer; above: drawn at random (default: 0)",
    )
    parser.add_argument(
        "--top-p",
        type=share,
        default=1.0,
        help="draw from this share of probability (default: 1)",
    )
    add_seed(parser)
    add_pictures(parser)


class Attached(NamedTuple):
    """Images that wait for the next question, or the frames of one clip."""

    images: Tensor
    clip: bool = False


class Conversation:
    """A model, the images it was shown, and what was said."""

    def __init__(self, model: Any, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        self.size = model.reading_size
        self.reset()

    def reset(self) -> None:
        """Forget all turns and images."""
        self.turns: list[str] = []
        self.shown: list[Tensor] = []
        self.fresh: list[Attached] = []

    def show_images(self, paths: Sequence[str]) -> int:
        """Attach images to the next turn; returns how many."""
        files = find_images(paths)
        args = self.args
        images = read_for(self.model, files, self.size, args.fit, args.quirks)
        self.fresh.append(Attached(images))
        return len(images)

    def show_video(self, path: str) -> int:
        """Attach the frames of a clip to the next turn; returns how many."""
        frames = read_frames(self.model, Path(path).expanduser(), self.size, self.args)
        self.fresh.append(Attached(frames, clip=True))
        return len(frames)

    def ask(self, text: str, on_token: Callable[[str], None] | None = None) -> str:
        """Say ``text`` with what was attached, and return the answer.

        ``on_token`` is called with each new piece of it.

        Raises ``DataError`` where the text holds another number of marks than images are attached;
        nothing is remembered then.
        """
        import torch

        text = self._marked(text)
        images = [*self.shown, *(one.images for one in self.fresh)]
        answer = self.model.generate_text(
            torch.cat(images) if images else None,
            [*self.turns, text] if self.turns else text,
            max_new_tokens=self.args.max_new_tokens,
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            seed=self.args.seed + len(self.turns) // 2,
            on_token=on_token,
        )
        self.turns += [text, answer]
        self.shown, self.fresh = images, []
        return answer

    def _marked(self, text: str) -> str:
        """Give all that is attached its marks, since a later turn must know which images are its own."""
        attached = sum(len(one.images) for one in self.fresh)
        marks = text.count(MARK)
        if not marks:
            return "".join(self._marks(one) for one in self.fresh) + text
        if marks != attached:
            held = f"{marks} {MARK} mark{'s' if marks > 1 else ''}"
            there = f"{attached or 'no'} image{'s are' if attached > 1 else ' is'} attached"
            raise DataError(
                f"the text holds {held}, but {there}; write one mark per image, or none."
            )
        return text

    def _marks(self, one: Attached) -> str:
        from vilau.models.questions import clip_marks

        count = len(one.images)
        return clip_marks(self.model, count) if one.clip else f"{MARK}\n" * count


def run(args: argparse.Namespace) -> int:
    """Answer one prompt, or talk until the end; returns the exit code."""
    if args.prompt is not None and not args.prompt.strip():
        raise ConfigError("--prompt is empty; write a question.")
    check_text("--prompt", args.prompt or "")
    find_images(args.image)  # complains before the model is opened
    talk = Conversation(open_model(args), args)
    if args.image:
        talk.show_images(args.image)
    if args.video:
        talk.show_video(args.video)
    if args.prompt is not None:
        _answer(talk, args.prompt)
    elif sys.stdin.isatty():
        note(f"write a question; {HELP}")
        _talk(talk)
    else:
        for line in _piped_lines():
            _turn(talk, line)
    return 0


def _talk(talk: Conversation) -> None:
    """Converse on a terminal: a mistake is told, and the conversation goes on."""
    for line in _typed_lines():
        if line == "/quit":
            return
        try:
            with memory_told(talk.args):
                _turn(talk, line)
        except VilauError as error:
            note(f"error: {error}")
        except KeyboardInterrupt:
            note("\n(the answer was dropped)")


def _piped_lines() -> Iterator[str]:
    """Lines of standard input until it ends, or says so."""
    try:
        for line in map(str.strip, sys.stdin):
            if line == "/quit":
                return
            yield line
    except UnicodeDecodeError as error:
        raise not_utf8("standard input", error.object[error.start]) from None


def _typed_lines() -> Iterator[str]:
    """Lines typed at a terminal until Ctrl-D or Ctrl-C, with a history of the arrow keys where there is one."""
    with contextlib.suppress(ImportError):  # not on every platform
        import readline  # noqa: F401 - its import alone gives input() a history
    while True:
        try:
            line = input("> ").strip()
        except UnicodeDecodeError as error:
            note(f"error: {not_utf8('the line', error.object[error.start])}")
            continue
        except (EOFError, KeyboardInterrupt):
            note("")
            return
        yield line


def _answer(talk: Conversation, question: str) -> None:
    """Print the answer: on a terminal piece by piece, else at once."""

    def show(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    streaming = sys.stdout.isatty()
    answer = talk.ask(question, show if streaming else None)
    say("" if streaming else answer)
    if not answer:
        note("(the model ended its answer at once)")


def _turn(talk: Conversation, line: str) -> None:
    """Obey a command or answer a question."""
    if not line:
        return
    if not line.startswith("/"):
        check_text("the line", line)
        _answer(talk, line)
        return
    try:
        command, *words = shlex.split(line)
    except ValueError as error:
        raise DataError(f"{line} cannot be read ({error}); close the quotes.") from None
    if command == "/image" and words:
        count = talk.show_images(words)
        note(f"{count} image{'s' if count > 1 else ''} for the next question")
    elif command == "/video" and len(words) == 1:
        note(f"{talk.show_video(words[0])} frames for the next question")
    elif command == "/reset":
        talk.reset()
    elif command == "/help":
        note(HELP)
    else:
        raise DataError(f"{line} is no command; write {HELP}")
