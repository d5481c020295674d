"""``vilau chat``: one answer, lines from a pipe, and a conversation on a terminal."""

from __future__ import annotations

import builtins
import io
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import vilau as kit
from tests.apps.conftest import Command
from tests.models import tiny
from vilau.apps.chat import Conversation
from vilau.apps.common import LARGEST
from vilau.data.forms import conversation
from vilau.layers.pixels import to_float
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.rows import Layout
from vilau.models.vila_u.model import VilaU
from vilau.types import Segment

Answers = Callable[..., str]
QUESTION = "how many squares are there ?"


@pytest.fixture
def answers(model_folder: Path) -> Answers:
    """The model's own answers."""
    model = kit.load(model_folder)

    def ask(images: list[int] | None, prompt: str | list[str], **settings: object) -> str:
        pixels = None if images is None else to_float(tiny.images(3))[images]
        return model.generate_text(pixels, prompt, **{"max_new_tokens": 6, **settings})

    return ask


@pytest.fixture
def chat(vilau: Command, model_folder: Path) -> Command:
    def call(*arguments: object) -> tuple[int, str, str]:
        return vilau("chat", model_folder, "--max-new-tokens", 6, *arguments)

    return call


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """The pictures that models are asked about: their tiny answers may be the same to all."""
    found = []
    ask = VilaU.generate_text

    def spy(model: VilaU, images: torch.Tensor | None, *args: Any, **settings: Any) -> Any:
        found.append(images)
        return ask(model, images, *args, **settings)

    monkeypatch.setattr(VilaU, "generate_text", spy)
    return found


def test_one_answer(
    chat: Command, photos: Path, answers: Answers, shown: list[torch.Tensor | None]
) -> None:
    assert chat("--prompt", QUESTION) == (0, answers(None, QUESTION) + "\n", "")
    one = chat("--prompt", QUESTION, "--image", photos / "b.png")
    assert one == (0, answers([1], QUESTION) + "\n", "")
    two = chat("--prompt", QUESTION, "--image", photos / "c.png", photos / "a.png")
    assert two[1] == answers([2, 0], QUESTION) + "\n"
    text = "is <image> like <image> ?"
    placed = chat("--prompt", text, "--image", photos / "c.png", "--image", photos / "a.png")
    assert placed[1] == answers([2, 0], text) + "\n"
    # Of each pair the first was asked by the command, the second by `answers`.
    given = [None, [1], [2, 0], [2, 0]]
    for pictures, expected in zip(shown[::2], given, strict=True):
        if expected is None:
            assert pictures is None
        else:
            assert pictures is not None
            assert torch.equal(pictures, to_float(tiny.images(3))[expected])


def test_an_empty_answer_is_said_to_be_one(chat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vilau.apps.chat.Conversation.ask", lambda *_: "")
    assert chat("--prompt", QUESTION) == (0, "\n", "(the model ended its answer at once)\n")


CLIP = "<vi_start>" + "<image>" * 8 + "<vi_end>\n"
FRAMES = [0, 0, 1, 1, 1, 1, 2, 2]


def test_a_clip_is_eight_frames(chat: Command, photos: Path, answers: Answers) -> None:
    code, printed, _ = chat("--prompt", QUESTION, "--video", photos)
    assert (code, printed) == (0, answers(FRAMES, CLIP + QUESTION) + "\n")
    own = "<image>\n" * 8 + QUESTION
    assert chat("--prompt", own, "--video", photos)[1] == answers(FRAMES, own) + "\n"


@pytest.mark.parametrize("form", ["plain", "published"])
def test_a_clip_is_shown_as_in_training(
    form: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model reads begins as the document that would teach it, in the first turn and in the next."""
    model = tiny.vila_u(prompt=PromptConfig(system="two .", form=form), max_length=512)
    lay_out, generate_text = model.sequence.answer_prompts, model.generate_text
    read: list[Layout] = []

    def heard(chats: Sequence[Sequence[Segment]]) -> Layout:
        read.append(lay_out(chats))
        return read[-1]

    def star(*arguments: Any, **settings: Any) -> str:
        generate_text(*arguments, **settings)
        return "a star"

    monkeypatch.setattr(model.sequence, "answer_prompts", heard)
    monkeypatch.setattr(model, "generate_text", star)
    talk = Conversation(
        model,
        Namespace(fit="squash", quirks=None, max_new_tokens=1, temperature=0, top_p=1, seed=0),
    )
    talk.show_video(str(photos))
    turns = [QUESTION, "a star", "and now ?", "a star"]
    for number in (0, 2):
        talk.ask(turns[number])
        learnt = model.sequence.lay_out([conversation(tuple(range(8)), turns[: number + 2])])
        seen = read.pop()
        length = seen.ids.shape[1]
        assert torch.equal(learnt.ids[:, :length], seen.ids)
        assert torch.equal(learnt.span_starts, seen.span_starts)
        assert not learnt.targets[:, length - 1].any()
        assert learnt.targets[:, length:].all()


def test_drawn_answers_follow_the_seed(chat: Command, answers: Answers) -> None:
    drawn = ("--prompt", QUESTION, "--temperature", 1.5, "--top-p", 0.95)
    texts = [chat(*drawn, "--seed", seed)[1].strip() for seed in (1, 1, 2)]
    settings = {"temperature": 1.5, "top_p": 0.95}
    assert texts == [answers(None, QUESTION, seed=seed, **settings) for seed in (1, 1, 2)]
    assert texts[0] != texts[2]
    assert chat(*drawn, "--seed", LARGEST)[0] == 0


def test_lines_from_a_pipe_are_turns(
    chat: Command, photos: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    lines = [f"/image '{photos}/a.png'", "what is it ?", "", "and now ?", f"/image {photos}/b.png",
             "compare", "/reset", "what is it ?"]  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    code, printed, error = chat()
    assert code == 0
    assert error == "1 image for the next question\n" * 2
    first = answers([0], "<image>\nwhat is it ?")
    turns = ["<image>\nwhat is it ?", first, "and now ?"]
    second = answers([0], turns)
    turns += [second, "<image>\ncompare"]
    third = answers([0, 1], turns)
    fourth = answers(None, "what is it ?")
    assert printed.split("\n") == [first, second, third, fourth, ""]


def test_a_mistake_in_a_pipe_ends_it(chat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, says in [
        ("/image gone.png", "gone.png does not exist"),
        ("/dance", "/dance is no command; write /image FILE..."),
        ("/image 'open", "cannot be read (No closing quotation); close the quotes"),
        ("<image> what ?", "the text holds 1 <image> mark, but no image is attached; write one"),
        ("/video https://example.org/a.mp4", "is a URL, and vilau downloads nothing"),
    ]:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
        code, printed, error = chat()
        assert (code, printed, error.count("\n")) == (2, "", 1)
        assert says in error


def test_a_pipe_ends_where_it_says_so(
    chat: Command, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n/quit\n/dance\n"))
    assert chat() == (0, answers(None, QUESTION) + "\n", "")


def test_lines_that_are_no_utf8_are_told(chat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # Standard input is strict where the locale is UTF-8, and keeps odd bytes where it is C.
    for errors, name in (("strict", "standard input"), ("surrogateescape", "the line")):
        piped = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8", errors=errors)
        monkeypatch.setattr("sys.stdin", piped)
        said = f"error: {name} holds the byte 0xff, which is no UTF-8; write it in UTF-8.\n"
        assert chat() == (2, "", said)


def test_a_typed_line_that_is_no_utf8_does_not_end_the_conversation(
    chat: Command, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([b"\xff", QUESTION.encode(), b"/quit"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(builtins, "input", lambda _: next(typed).decode())
    code, printed, error = chat()
    assert (code, printed) == (0, answers(None, QUESTION) + "\n")
    assert "error: the line holds the byte 0xff, which is no UTF-8" in error


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_mistakes_do_not_end_the_conversation(
    chat: Command, photos: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    typed: Iterator[str] = iter(
        [
            "/image gone.png",
            f"/image {photos}/c.png",
            "<image> or <image> ?",
            "what is it ?",
            "/help",
            "/quit",
            "never",
        ]  # fmt: skip
    )

    def read(prompt: str) -> str:
        assert prompt == "> "
        return next(typed)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(builtins, "input", read)
    code, printed, error = chat()
    assert code == 0
    assert printed == answers([2], "what is it ?") + "\n"
    assert "error: gone.png does not exist" in error
    assert "error: the text holds 2 <image> marks, but 1 image is attached" in error
    assert error.count("/reset (forget everything)") == 2  # at the beginning, and for /help
    assert next(typed) == "never"


def test_control_c_drops_the_answer_and_control_d_ends(
    chat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([QUESTION])

    def read(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(builtins, "input", read)
    monkeypatch.setattr(Conversation, "ask", interrupted)
    code, printed, error = chat()
    assert (code, printed) == (0, "")
    assert "(the answer was dropped)" in error


def test_answers_arrive_piece_by_piece_on_a_terminal(
    chat: Command, answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    pieces: list[str] = []

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr("sys.stdout", Screen())
    assert chat("--prompt", QUESTION, "--temperature", 1.5, "--seed", 1)[0] == 0
    monkeypatch.undo()
    assert "".join(pieces) == answers(None, QUESTION, temperature=1.5, seed=1) + "\n"
    assert len(pieces) > 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompt", ""), "--prompt is empty; write a question"),
        (("--prompt", "a\udcff"), "--prompt holds the byte 0xff, which is no UTF-8; write it in"),
        (("--prompt", "x", "--seed", "9" * 23), f"--seed: {'9' * 23} is above {LARGEST}, the larg"),
        (("--prompt", "x", "--seed", "9" * 5000), f" is above {LARGEST}, the largest allowed"),
        (("--prompt", "x", "--seed", LARGEST + 1), f"--seed: {LARGEST + 1} is above {LARGEST}"),
        (("--prompt", "x", "--image", "gone.png"), "gone.png does not exist"),
        (("--prompt", "x", "--image", "words.png"), "words.png cannot be read as an image"),
        (("--prompt", "x", "--image", "empty.png"), "empty.png cannot be read as an image"),
        (("--prompt", "x", "--image", "http://x.org/a.png"), "is a URL, and vilau downloads"),
        (("--prompt", "x", "--video", "nothing"), "nothing holds no images; give a folder of"),
        (("--prompt", "x", "--video", "ruins"), "ruins holds no frame that can be read"),
        (("--prompt", "x", "--video", "empty.mp4"), "empty.mp4 is an empty file; give a video"),
        (("--prompt", "x", "--video", "gone.gif"), "gone.gif does not exist; give a video file"),
        (("--prompt", "x", "--video", "words.gif"), "words.gif cannot be read as a video"),
        (("--prompt", "x", "--image", "a", "--video", "b"), "not allowed with argument"),
        (("--prompt", "x", "--device", "gpu9"), "--device is gpu9; write one of cpu, cuda, mps"),
        (("--prompt", "x", "--device", "cuda:99"), "--device is cuda:99, but this machine has"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    chat: Command, arguments: tuple[str, ...], says: str
) -> None:
    Path("words.png").write_text("these are words")
    Path("words.gif").write_text("these are words")
    Path("empty.png").write_bytes(b"")
    Path("empty.mp4").write_bytes(b"")
    Path("nothing").mkdir()
    Path("ruins").mkdir()
    Path("ruins/frame.png").write_text("no picture")
    code, printed, error = chat(*arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1), error
    assert says in error


def test_a_broken_clip_is_read_and_reported(chat: Command, photos: Path) -> None:
    (photos / "c.png").write_bytes((photos / "c.png").read_bytes()[:60])
    code, _, error = chat("--prompt", QUESTION, "--video", photos)
    assert code == 0
    assert error == f"{photos} is broken: 2 of 3 frames can be read, the others are left out.\n"


def test_two_chats_in_half_precision_agree(chat: Command, photos: Path) -> None:
    half = ("--prompt", QUESTION, "--image", photos / "a.png", "--dtype", "bfloat16")
    assert chat(*half) == chat(*half)
    assert torch.get_default_dtype() == torch.float32
