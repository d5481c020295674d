"""Tables and claims of a scale: where another thing is measured there, another table is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.conftest import Workshop
from vilau.errors import ConfigError
from vilau.study.load import load_study
from vilau.study.page_table import result_section
from vilau.study.plan import make_plan
from vilau.study.results import collect
from vilau.study.store import Store, write_json
from vilau.study.table import csv_table, results_json, terminal_table

SMALL = """  scales:
    small:
      columns:
        Hard: {metric: evaluate/test/hard, format: .1%}
        Top-1: evaluate/test/hard_top1
      baselines:
        guess: {Hard: 0.25}
      paper:
        quiet: {Hard: 40.0}
claims:
"""
TINY_ONLY = "chance.Top-1 + 0.1, scales: [tiny]}"


@pytest.fixture
def scaled(shop: Workshop) -> Workshop:
    """The toy study, whose table is another at scale small."""
    shop.replace("claims:\n", SMALL)
    shop.replace("noisy.Top-1 > chance.Top-1 + 0.1}", f"noisy.Top-1 > {TINY_ONLY}")
    text = shop.path.read_text()
    shop.path.write_text(
        text + "  - {says: better than a guess, holds: quiet.Hard > guess.Hard, scales: [small]}\n"
    )
    return shop


def finish(shop: Workshop, store: Store, scale: str, numbers: dict[str, float]) -> None:
    for cell in shop.plan(scale=scale).cells:
        folder = store.run_dir(cell.run)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"finished": True, "metrics": numbers, "passports": {}}
        write_json(folder / "metrics.json", content)


def test_a_scale_has_a_table_of_its_own(scaled: Workshop, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    finish(scaled, store, "small", {"test/hard": 0.5, "test/hard_top1": 0.7, "test/accuracy": 0.9})
    plan = scaled.plan(scale="small")
    results = collect(plan, store)
    assert list(results.ours[0].cells) == ["Hard", "Top-1"]
    assert results.ours[0].cells["Top-1"].values == {0: 0.7}
    assert [row.name for row in results.baselines] == ["guess"]
    assert [(row.name, row.cells["Hard"].mean) for row in results.paper] == [("quiet", 40.0)]
    assert not results.notes(), "what the other table shows is not missed here"
    shown = terminal_table(results)
    assert "50.0%" in shown
    assert "Loss" not in shown
    assert "✓ better than a guess  (50.0% > 25.0%" in shown
    assert "both beat chance" not in shown
    assert csv_table(results).splitlines()[0].startswith("kind,name,label,Hard,Hard sd")
    assert results_json(results)["columns"]["Hard"]["metric"] == "test/hard"
    assert "evaluate/test/hard<" in result_section(results)
    # Planned again from its own study, as a report is, it stays the same.
    assert make_plan(plan.study, plan.options).study == plan.study


def test_other_scales_keep_the_table(scaled: Workshop, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    finish(scaled, store, "tiny", {"test/accuracy": 0.9, "val/accuracy": 0.9, "val/loss": 1.0})
    results = collect(scaled.plan(), store)
    assert list(results.ours[0].cells) == ["Val", "Loss", "Top-1"]
    assert [row.name for row in results.baselines] == ["chance", "ceiling"]
    says = [checked.claim.says for checked in results.claims]
    assert says == ["quiet training answers better", "both beat chance"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("small", "smal", "there is no scale `smal`. Did you mean `small`?"),
        ("guess.Hard, scales: [small]", "guess.Hard, scales: [smal]", "So is the table at scale `smal`"),
        (TINY_ONLY, TINY_ONLY.replace("tiny", "tyni"), "there is no scale `tyni`. Did you mean `tiny`?"),
        (TINY_ONLY, TINY_ONLY.replace("[tiny]", "tiny"), "claims.1.scales` holds 'tiny'; write a list"),
        (TINY_ONLY, "chance.Top-1 + 0.1}", "names `chance.Top-1`, which is not known"),
        (TINY_ONLY, "chance.Top-1 + 0.1}", "So is the table at scale `small`; `scales: [...]` beside `holds` names"),
        ("guess.Hard, scales: [small]}", "guess.Hard}", "So is the table at scales without a table of their own"),
        ("guess: {Hard: 0.25}", "guess: {Val: 0.25}", "unknown column `Val`"),
        ("guess: {Hard: 0.25}", "quiet: {Hard: 0.25}", "`quiet` is a variant; name it otherwise"),
        ("Hard: {metric: evaluate/test/hard", "Hard: {metric: evalate/test/hard", "Did you mean `evaluate`?"),
        ("      columns:\n        Hard", "      colums:\n        Hard", "unknown key `colums`. Did you mean"),
        ("      baselines:\n        guess: {Hard: 0.25}", "      scales: {}", "unknown key `scales`"),
        ("    small:\n      columns:\n", "    small:\n      paper: {}\n    tiny:\n      columns:\n",
         "`table.scales.small` takes the place of the table at this scale; write its columns"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_line(scaled: Workshop, old: str, new: str, told: str) -> None:
    scaled.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        scaled.plan()
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{scaled.path}:")
    assert "\n" not in str(caught.value)


def test_the_whole_file_knows_all_tables(scaled: Workshop) -> None:
    study = load_study(scaled.path)
    assert list(study.tables) == ["small"]
    assert [claim.scales for claim in study.claims] == [(), ("tiny",), ("small",)]


def test_a_table_of_no_scale_is_refused_though_no_claim_is_about_it(scaled: Workshop) -> None:
    *lines, claim = scaled.path.read_text().splitlines()
    assert "quiet.Hard" in claim
    scaled.path.write_text("\n".join(lines).replace("    small:", "    smal:"))
    with pytest.raises(
        ConfigError, match=r"there is no scale `smal`\. Did you mean `small`\?"
    ) as told:
        scaled.plan()
    assert str(told.value).startswith(f"{scaled.path}:{scaled.line_of('smal:')}: ")
