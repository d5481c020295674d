"""The runs folder: one folder per run, links into it per study, nothing half-written ever taken for done.

runs/.store/tower-4b933f30/   run.yaml metrics.json status.json log.txt environment.txt
                              checkpoints/ model/ and TensorBoard event files
runs/<study>/<variant>[/seed<k>]/<stage>   relative links into the store
runs/<study>/report/                       table, figures, index.html
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vilau.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows has no flock: there two engines on one store are not kept apart.
    fcntl = None  # type: ignore[assignment]

KEPT_WHEN_FRESH = ("lock", "run.yaml", "log.txt")


class Store:
    """A runs folder.

    Args:
        root: the folder named by ``--runs``; made when first written to.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run_dir(self, name: str) -> Path:
        """Return the folder of the run ``name``."""
        return self.root / ".store" / name

    def product(self, name: str) -> Path:
        """Return the folder that the run ``name`` exports its model to."""
        return self.run_dir(name).resolve() / "model"

    def report_dir(self, study: str) -> Path:
        """Return the folder of a study's report."""
        return self.root / study / "report"

    def data_dir(self) -> Path:
        """Return the folder where drawn data sets are written once and shared by all runs."""
        return self.root.resolve() / ".data"

    def metrics(self, name: str) -> dict[str, Any] | None:
        """Return ``metrics.json`` of a finished run, or None."""
        return finished_metrics(self.run_dir(name))

    def prepare(self) -> None:
        """Make the store and see that it can be written to.

        Raises:
            ConfigError: it cannot.
        """
        probe = self.root / ".store" / f".probe-{os.getpid()}"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"--runs {self.root}: cannot write there ({error.strerror}); name another folder."
            ) from error

    def link(self, study: str, place: tuple[str, ...], name: str) -> None:
        """Make ``runs/<study>/<place...>`` a relative link to the run ``name``."""
        link = self.root.joinpath(study, *place)
        target = os.path.relpath(self.run_dir(name), link.parent)
        if link.is_symlink():
            if os.readlink(link) == target:
                return
            link.unlink()
        elif link.exists():
            raise ConfigError(f"{link} is in the way of a link to {name}; move it elsewhere.")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target, target_is_directory=True)

    def unlink_all(self, study: str) -> None:
        """Remove a study's links (never what they point to), so that none of an older plan stays."""
        for path in sorted((self.root / study).glob("**/*"), reverse=True):
            if path.is_symlink() and ".store" in os.readlink(path):
                path.unlink()
        for path in sorted((self.root / study).glob("**/"), reverse=True):
            with contextlib.suppress(OSError):  # only empty folders go
                path.rmdir()


def erase(run_dir: Path) -> None:
    """Empty a run's folder for ``--fresh``; the caller holds its lock.

    What calls the run finished goes first: cut off half-way, what is left is taken for nothing.
    """
    (run_dir / "metrics.json").unlink(missing_ok=True)
    for path in run_dir.iterdir():
        if path.name in KEPT_WHEN_FRESH:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def finished_metrics(run_dir: Path) -> dict[str, Any] | None:
    """Return the metrics of a run that is finished; None if the file is absent, broken or early."""
    found = read_json(run_dir / "metrics.json")
    return found if found is not None and found.get("finished") is True else None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON mapping, or None if the file is absent or does not parse."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that readers see the old content or the new one, never a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[bool]:
    """Hold a run's lock; yields False where another process holds it. Freed even by ``kill -9``."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("a") as file:
        yield _try_lock(file)


def is_running(run_dir: Path) -> bool:
    """Tell whether a process holds a run's lock; nothing is written, so a store of somebody else's can be looked at."""
    try:
        file = (run_dir / "lock").open()
    except OSError:
        return False
    with file:
        return not _try_lock(file, shared=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder that several engines write to, waiting for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(file: IO[str], *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
