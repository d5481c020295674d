"""Worker processes: jobs go out as far as hands are free, results come back as they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Self, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_stop: Event | None = None
"""In a worker: set when the others are to stop after what they are reading."""


class WorkerLostError(Exception):
    """A worker process ended without a word."""


class Crew:
    """Processes that work on jobs; with 0 workers, or when there is one job, this process does.

    Use as a context manager. When it is left early, workers stop before their next image; when this
    process is killed, they end by themselves.

    Args:
        workers: number of processes; 0: none.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        # Spawned, not forked: torch's threads do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)

    def run(self, work: Callable[[Job], Result], jobs: list[Job]) -> Iterator[Result]:
        """Yield the results in any order.

        Raises:
            WorkerLostError: a worker was killed, or crashed outside Python.
        """
        if self._workers == 0 or len(jobs) <= 1:
            yield from map(work, jobs)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                min(self._workers, len(jobs)),
                mp_context=self._context,
                initializer=_begin,
                initargs=(self._stop,),
            )
        try:
            yield from self._shared_out(self._pool, work, jobs)
        except BrokenProcessPool as error:
            raise WorkerLostError from error

    def _shared_out(
        self, pool: ProcessPoolExecutor, work: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[Result]:
        """Two jobs a worker are out at a time, so that a list of millions is not sent at once."""
        waiting = iter(jobs)
        out: set[Future[Result]] = set()
        while True:
            free = 2 * self._workers - len(out)
            out |= {pool.submit(work, job) for job in islice(waiting, free)}
            if not out:
                return
            done, out = wait(out, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def stopping() -> bool:
    """Whether this process is a worker that was told to stop."""
    return _stop is not None and _stop.is_set()


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin(stop: Event) -> None:
    """Set a worker up: Ctrl-C is the parent's business, and without a parent there is no work."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: Any) -> None:
    wait_for([sentinel])
    os._exit(1)
