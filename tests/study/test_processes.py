"""Children never outlive their parent, stop when asked, and leave their last words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vilau.study.processes import Output, Spawner, stop_all

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.05)
    return False


PARENT = """
import subprocess, sys, os, time
os.environ["VILAU_PARENT"] = str(os.getpid())
code = "from vilau.study.processes import die_with_parent; die_with_parent(); "
code += "print('up', flush=True); import time; time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@linux
def test_a_child_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(child))


def test_last_words_and_log(tmp_path: Path) -> None:
    child = Spawner().launch(["no-such-verb"], {"X": "1"}, tmp_path / "log.txt")
    assert wait_until(lambda: child.poll() is not None)
    assert child.poll() == 2
    error = child.output.error()
    assert error is not None
    assert error.startswith("there is no verb `no-such-verb`.")
    assert "there is no verb" in (tmp_path / "log.txt").read_text()


def test_last_words_survive_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"first\nerror: the disk is full.\n")
    os.close(writing)
    output = Output(os.fdopen(reading, "rb"), tmp_path / "no" / "folder" / "log.txt")
    assert output.tail() == ["first", "error: the disk is full."]
    assert output.error() == "the disk is full."


def test_stop_asks_first_and_kills_those_who_do_not_listen() -> None:
    class Child:
        def __init__(self, listens: bool) -> None:
            self.listens, self.code, self.signals = listens, None, []  # type: ignore[var-annotated]

        def poll(self) -> int | None:
            return self.code

        def signal(self, number: int) -> None:
            self.signals.append(number)
            if self.code is None and (self.listens or number == signal.SIGKILL):
                self.code = -number

    polite, deaf = Child(True), Child(False)
    stop_all([polite, deaf], grace_s=0.1)  # type: ignore[list-item]
    assert polite.code == -signal.SIGTERM
    assert deaf.signals == [signal.SIGTERM, signal.SIGKILL]
