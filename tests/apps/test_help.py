"""What a stranger sees first: every verb explains itself, at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vilau.cli import APPS, main

VERBS = ("chat", "generate", "reconstruct", "encode", "decode", "classify", "convert")
CODE = """
import sys
from vilau.cli import main
for verb in {verbs}:
    try:
        main([verb, "--help"])
    except SystemExit:
        pass
heavy = {{"torch", "numpy", "PIL", "av", "transformers", "lightning"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", CODE.format(verbs=VERBS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", ["data", "data prepare", "data tokenize", "data show"])
def test_the_verbs_of_data_have_examples(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words.split(), "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"usage: vilau {words} " in printed
    assert f"example: vilau {words} " in printed


def test_the_help_of_chat_says_where_its_commands_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "on a terminal or from a pipe: each line is a question, or one of the commands" in printed
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_explains_every_option(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert f"example: vilau {verb} " in printed
    assert next(text for name, _, text in APPS if name == verb)[1:] in printed
    wanted = {"--device", "--dtype", "--allow-pickle"} if verb != "convert" else {"--layout"}
    wanted |= {"--seed"} if verb in ("chat", "generate") else set()
    assert all(word in printed for word in wanted)
