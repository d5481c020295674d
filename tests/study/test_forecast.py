"""How long runs take side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vilau.study.forecast import _until_over


@pytest.mark.parametrize(
    ("jobs", "after", "expected"),
    [
        (1, {}, 5.5),
        (2, {}, 4.0),  # all at once but for one, which takes the place of the shortest
        (2, {"tuned": {"trained"}}, 5.0),  # it waits although a core is free from 0.5 h on
        (3, {"tuned": {"trained"}, "other": {"tuned"}}, 5.5),
    ],
)
def test_a_run_starts_once_those_before_it_are_over(
    jobs: int, after: dict[str, set[str]], expected: float
) -> None:
    hours = {"trained": 4.0, "tuned": 1.0, "other": 0.5}
    plan: Any = SimpleNamespace(after={name: after.get(name, set()) for name in hours})
    end, most = _until_over(plan, hours, jobs)
    assert end == pytest.approx(expected)
    assert most == (1 if jobs == 1 or len(after) > 1 else 2)
