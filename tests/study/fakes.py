"""A launcher that ends stages at once, by script."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vilau.study.store import write_json


class FakeOutput:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def tail(self) -> list[str]:
        return self.lines

    def error(self) -> str | None:
        found = [line.removeprefix("error: ") for line in self.lines if line.startswith("error: ")]
        return found[-1] if found else None


class FakeChild:
    def __init__(self, code: int | None, lines: list[str]) -> None:
        self.output = FakeOutput(lines)
        self.code = code
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def signal(self, number: int) -> None:
        self.signals.append(number)
        self.code = -number if self.code is None else self.code


class FakeLauncher:
    """End every stage at once; ``codes`` says with which exit code (None: it runs on)."""

    def __init__(
        self,
        codes: dict[str, int | None] | None = None,
        accuracy: float = 0.9,
        said: str = "",
    ) -> None:
        self.codes = codes or {}
        self.said = said
        self.accuracy = accuracy
        self.launched: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.children: list[FakeChild] = []
        self.closed = False

    def launch(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> FakeChild:
        verb, *rest = arguments
        name = "check" if verb == "check" else Path(rest[1]).parent.name
        self.launched.append(name)
        self.environments.append(environment)
        code = self.codes.get(name.split("-")[0], 0)
        lines = ["Traceback", "error: key x is wrong; write y."] if code == 2 else ["boom"]
        if code == 0 and verb != "check":
            metrics = {"val/accuracy": self.accuracy, "test/accuracy": self.accuracy}
            log.write_text(self.said)
            write_json(log.parent / "metrics.json", {"finished": True, "metrics": metrics})
        self.children.append(FakeChild(code, lines))
        return self.children[-1]

    def close(self) -> None:
        self.closed = True
