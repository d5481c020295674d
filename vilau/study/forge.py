"""Start stages in a tenth of a second: import PyTorch once, then fork one process per stage.

Importing PyTorch, Lightning and the kit costs 5 to 20 seconds of a core, more than a small stage
trains. On Linux and the CPU, a helper process imports them once, never computes, and forks a fresh
process for each stage. It refuses to serve (and every stage gets an interpreter of its own) if an
import has started threads, which a fork would lose.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vilau.study.plan import Plan
from vilau.study.processes import PARENT, Child, Output, Spawner, die_with_parent, signal_group

_MESSAGE_BYTES = 1 << 16
_ALWAYS = ("vilau.study.stage", "vilau.study.check", "vilau.callbacks.step_seed",
           "vilau.callbacks.progress")  # fmt: skip


class Forge:
    """A launcher that forks stages from a process with everything imported.

    Args:
        modules: what to import besides the engine itself: the modules of a plan's classes.
        say: takes a line while the user waits for the imports.
    """

    def __init__(
        self, modules: Iterable[str], say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._modules = list(modules)
        self._say = say
        self._spawner = Spawner()
        self._started = False
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._codes: dict[int, int] = {}

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Fork a stage; where forking is not possible, start an interpreter for it."""
        if not self._started:
            self._start()
        if self._socket is None:
            return self._spawner.launch(arguments, environment, log)
        reading, writing = os.pipe()
        request = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
        try:
            socket.send_fds(self._socket, [request.encode()], [writing])
        except OSError:  # the helper is gone
            os.close(reading)
            return self._spawner.launch(arguments, environment, log)
        finally:
            os.close(writing)
        output = Output(os.fdopen(reading, "rb"), log)
        while (message := self._receive()) is not None:
            if "started" in message:
                self._codes.pop(
                    message["started"], None
                )  # of an earlier stage with the same process id
                return _Forged(message["started"], self, output)
        return self._spawner.launch(arguments, environment, log)

    def close(self) -> None:
        """End the helper process."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def code(self, pid: int) -> int | None:
        """Return the exit code of a forked stage, or None while it runs."""
        if self._socket is not None:
            with contextlib.suppress(BlockingIOError):
                while self._receive(socket.MSG_DONTWAIT) is not None:
                    pass
        if self._socket is None:
            # The helper is gone and took its children with it.
            return self._codes.get(pid, -signal.SIGKILL)
        return self._codes.get(pid)

    def _start(self) -> None:
        self._started = True
        self._say("loading PyTorch once for all stages …")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vilau.study.forge", str(theirs.fileno()), *self._modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", PARENT: str(os.getpid())},
                start_new_session=True,
            )
        self._socket = ours
        answer = self._receive()
        if answer is None or not answer["ready"]:
            self.close()

    def _receive(self, flags: int = 0) -> dict[str, Any] | None:
        """Take one message, noting exit codes; None (and no socket) once the helper is gone."""
        assert self._socket is not None
        data = self._socket.recv(_MESSAGE_BYTES, flags)
        if not data:
            self._socket.close()
            self._socket = None
            return None
        message: dict[str, Any] = json.loads(data)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
        return message


class _Forged:
    def __init__(self, pid: int, forge: Forge, output: Output) -> None:
        self.output = output
        self._pid, self._forge = pid, forge

    def poll(self) -> int | None:
        return self._forge.code(self._pid)

    def signal(self, number: int) -> None:
        # Once its code is known the process id may belong to somebody else.
        if self.poll() is None:
            signal_group(self._pid, number)


def can_fork(plan: Plan) -> bool:
    """Return whether a plan's stages may be forked: one CPU process each, on Linux."""
    trainer = plan.trainer
    alone = trainer.get("devices", 1) == 1 and trainer.get("num_nodes", 1) == 1
    return sys.platform == "linux" and trainer.get("accelerator") == "cpu" and alone


def modules_of(plan: Plan) -> list[str]:
    """Return the modules of every class a plan's configs name."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            path = value.get("class_path")
            if isinstance(path, str) and "." in path:
                found.add(path.rpartition(".")[0])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for run in plan.runs.values():
        walk(run.resolved.config)
    return sorted(found)


def serve(channel: socket.socket, modules: Sequence[str]) -> None:
    """Import ``modules``, then fork a process for every request until the engine is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in (*_ALWAYS, *modules):
        # A module that cannot be imported is the stage's to complain about, in its own words.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    ready = len(os.listdir("/proc/self/task")) == 1
    channel.send(json.dumps({"ready": ready}).encode())
    if not ready:
        return
    gc.collect()
    gc.freeze()  # what is imported is never collected, so children share its memory pages
    channel.settimeout(0.05)
    while True:
        with contextlib.suppress(TimeoutError):
            data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
            if not data:
                return
            pid = os.fork()
            if pid == 0:
                channel.close()
                _become_stage(json.loads(data), descriptors[0])
            os.close(descriptors[0])
            channel.send(json.dumps({"started": pid}).encode())
        _tell_ended(channel)


def _tell_ended(channel: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            channel.send(json.dumps({"ended": pid, "code": code}).encode())


def _become_stage(request: dict[str, Any], output: int) -> NoReturn:
    """Run ``vilau <arguments>`` in this freshly forked process and leave with its code."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.update(request["environment"])
        os.environ[PARENT] = str(os.getppid())
        sys.argv = ["vilau", *request["arguments"]]
        code = importlib.import_module("vilau.cli").main(request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of this process: tell, then leave
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    die_with_parent()
    with socket.socket(fileno=int(sys.argv[1])) as descriptor:
        serve(descriptor, sys.argv[2:])
