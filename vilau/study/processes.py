"""Child processes that never outlive their parent, and whose last words are kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

PARENT = "VILAU_PARENT"
"""Environment variable: the process that a child must not outlive."""

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 30


class Child(Protocol):
    """A running stage, however it was started."""

    output: Output

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the process and everything it started."""
        ...


class Launcher(Protocol):
    """Something that starts ``vilau <arguments>`` in a process of its own."""

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Start a child whose output goes to ``log``."""
        ...

    def close(self) -> None:
        """Free what the launcher holds."""
        ...


class Spawner:
    """Start each child as a new interpreter: ``python -m vilau <arguments>``."""

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Start a child in a session of its own, so that Ctrl-C reaches only the engine."""
        process = subprocess.Popen(
            [sys.executable, "-m", "vilau", *arguments],
            env={**os.environ, **environment, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        return _Spawned(process, Output(process.stdout, log))

    def close(self) -> None:
        """Nothing to free."""


class _Spawned:
    def __init__(self, process: subprocess.Popen[bytes], output: Output) -> None:
        self.output = output
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        signal_group(self._process.pid, number)


class Output:
    """Copy a child's output to its log and keep the last lines, even when the disk is full."""

    def __init__(self, stream: IO[bytes], log: Path) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._thread = threading.Thread(target=self._copy, args=(stream, log), daemon=True)
        self._thread.start()

    def tail(self) -> list[str]:
        """Return the last lines, once the child has said all."""
        # A grandchild may hold the pipe open; its words are not waited for.
        self._thread.join(timeout=2)
        return list(self._tail)

    def error(self) -> str | None:
        """Return the sentence of a user's mistake, if the child ended with one."""
        for line in reversed(self.tail()):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
        return None

    def _copy(self, stream: IO[bytes], log: Path) -> None:
        with stream, contextlib.ExitStack() as stack:
            file: IO[bytes] | None = None
            with contextlib.suppress(OSError):
                file = stack.enter_context(log.open("ab", buffering=0))
            for line in stream:
                self._tail.append(line.decode(errors="replace").rstrip())
                if file is not None:
                    with contextlib.suppress(OSError):
                        file.write(line)


def die_with_parent() -> None:
    """Ask the system to kill this process when its parent dies (Linux; elsewhere nothing happens).

    Called first thing in a child. The ranks Lightning starts are children of their rank 0 and bind
    themselves to it in the same way.
    """
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the call above; ranks have another parent than the engine.
    if "LOCAL_RANK" not in os.environ and os.getppid() != int(parent):
        os._exit(1)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a child's whole session; a child that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


STOP_GRACE_S = 600.0
"""How long a child may take for its last step and its checkpoint, which at published sizes are tens of GB."""


def stop_all(children: Sequence[Child], grace_s: float = STOP_GRACE_S) -> None:
    """End children: SIGTERM first, so that they can write a checkpoint, SIGKILL after ``grace_s``."""
    for child in children:
        child.signal(signal.SIGTERM)
    deadline_s = time.monotonic() + grace_s
    try:
        while any(child.poll() is None for child in children) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    finally:  # also when Ctrl-C comes a second time
        for child in children:
            child.signal(signal.SIGKILL)
