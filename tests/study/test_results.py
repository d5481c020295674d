"""Tables that never mix unlike numbers, claims over seeds, and cells that say why they are empty."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import Workshop
from vilau.errors import ConfigError
from vilau.study.plan import Plan
from vilau.study.results import Results, collect
from vilau.study.store import Store, write_json
from vilau.study.table import csv_table, markdown_table, results_json, terminal_table


def finish(plan: Plan, store: Store, numbers: dict[str, Any] | None = None, **more: Any) -> None:
    """Write metrics for every cell: 0.9 for quiet, 0.6 for noisy, a hundredth more per seed."""
    for cell in plan.cells:
        value = {"quiet": 0.9, "noisy": 0.6}[cell.variant] + cell.seed / 100
        metrics = {"val/accuracy": value, "val/loss": 1 - value, "test/accuracy": value,
                   "test/chance": 0.5}  # fmt: skip
        folder = store.run_dir(cell.run)
        folder.mkdir(parents=True, exist_ok=True)
        passports = {"test/accuracy": {"metric": "accuracy", "reference": "set-1"}}
        content = {"finished": True, "metrics": metrics | (numbers or {}), "passports": passports}
        write_json(folder / "metrics.json", content | more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def cell_text(results: Results, row: str, column: int) -> str:
    line = next(x for x in terminal_table(results).splitlines() if x.startswith(row))
    return line[len(row) :].split()[column]


def test_ours_baselines_and_paper_stand_apart(shop: Workshop, store: Store) -> None:
    plan = shop.plan()
    finish(plan, store)
    results = collect(plan, store)
    assert results.complete
    text = terminal_table(results)
    sections = text.split("─\n")
    assert "Quiet" in sections[1]
    assert "chance" in sections[2]
    assert "0.500" in sections[2]
    assert "paper: Quiet" in sections[3]
    assert cell_text(results, "Quiet", 0) == "0.900"
    assert cell_text(results, "Quiet", 1) == "0.10"
    assert cell_text(results, "paper: Quiet", 2) == "0.9"  # as printed
    assert "Loss ↓" in text


def test_seeds_give_mean_and_deviation(shop: Workshop, store: Store) -> None:
    plan = shop.plan(seeds=[0, 1, 2])
    finish(plan, store)
    results = collect(plan, store)
    assert "0.910 ± 0.010" in terminal_table(results)
    better, both = results.claims
    assert (better.holds, better.seeds_holding, better.seeds) == (True, 3, 3)
    assert better.mark == "✓"
    assert better.shown == "0.910 > 0.610"
    assert better.margin == "0.300 ± 0.000"
    assert both.holds is True
    assert "3 of 3 seeds" in terminal_table(results)


def test_a_variant_without_a_stage_has_no_number_of_it(shop: Workshop, store: Store) -> None:
    shop.replace("    gate:", "    variants: [noisy]\n    gate:")
    plan = shop.plan()
    finish(plan, store)
    results = collect(plan, store)
    assert cell_text(results, "Quiet", 0) == "–"
    assert results.notes() == []


def test_a_comparison_of_unlike_columns_has_no_margin(shop: Workshop, store: Store) -> None:
    shop.replace("quiet.Top-1 > noisy.Top-1}", "quiet.Top-1 > noisy.Loss}")
    plan = shop.plan()
    finish(plan, store)
    claim = collect(plan, store).claims[0]
    assert (claim.holds, claim.margin) == (True, "")


def test_a_claim_can_fail_for_some_seeds(shop: Workshop, store: Store) -> None:
    shop.replace("quiet.Top-1 > noisy.Top-1}", "quiet.Top-1 > 0.905}")
    plan = shop.plan(seeds=[0, 1, 2])
    finish(plan, store)
    claim = collect(plan, store).claims[0]
    assert (claim.holds, claim.seeds_holding, claim.mark) == (True, 2, "~")
    assert "~ quiet training answers better" in terminal_table(collect(plan, store))


def test_a_claim_that_fails_says_so(shop: Workshop, store: Store) -> None:
    shop.replace("quiet.Top-1 > noisy.Top-1}", "noisy.Top-1 > quiet.Top-1}")
    plan = shop.plan()
    finish(plan, store)
    text = terminal_table(collect(plan, store))
    assert "✗ quiet training answers better  (0.600 > 0.900, margin -0.300)" in text


def test_unlike_passports_never_share_a_column(shop: Workshop, store: Store) -> None:
    plan = shop.plan()
    finish(plan, store)
    cell = plan.cell("noisy", 0, "evaluate")
    assert cell is not None
    path = store.run_dir(cell.run) / "metrics.json"
    content = json.loads(path.read_text())
    content["passports"]["test/accuracy"]["reference"] = "set-2"
    write_json(path, content)
    results = collect(plan, store)
    assert results.ours[1].cells["Top-1"].values == {}
    assert results.ours[1].cells["Top-1"].short == "other passport"
    assert "reference is `set-2`, elsewhere `set-1`" in results.notes()[0]
    assert results.claims[0].holds is None
    assert "?" in terminal_table(results)
    assert results.ours[0].cells["Top-1"].values == {0: 0.9}


def test_seeds_with_unlike_passports_have_no_mean(shop: Workshop, store: Store) -> None:
    plan = shop.plan(seeds=[0, 1])
    finish(plan, store)
    cell = plan.cell("noisy", 1, "evaluate")
    assert cell is not None
    path = store.run_dir(cell.run) / "metrics.json"
    content = json.loads(path.read_text())
    content["passports"] = {}
    write_json(path, content)
    measured = collect(plan, store).ours[1].cells["Top-1"]
    assert (measured.values, measured.short) == ({}, "unlike passports")


def test_empty_cells_say_why(shop: Workshop, store: Store) -> None:
    plan = shop.plan()
    finish(shop.plan(only=["quiet"], overrides=[]), store)
    cell = plan.cell("noisy", 0, "first")
    assert cell is not None
    store.run_dir(cell.run).mkdir(parents=True)
    write_json(store.run_dir(cell.run) / "status.json", {"step": 7, "max_steps": 24})
    evaluate = plan.cell("noisy", 0, "evaluate")
    assert evaluate is not None
    results = collect(plan, store, {evaluate.run: "not run: the gate stayed shut"})
    assert not results.complete
    assert "noisy/first was cut off at step 7 of 24." in results.notes()
    assert "noisy/evaluate: not run: the gate stayed shut." in results.notes()
    assert "not run" in terminal_table(results)


def test_a_metric_that_was_not_logged_names_the_closest(shop: Workshop, store: Store) -> None:
    shop.replace("Val: first/val/accuracy", "Val: first/val/acuracy")
    plan = shop.plan()
    finish(plan, store)
    results = collect(plan, store)
    assert "quiet/first logged no `val/acuracy`. Did you mean `val/accuracy`?" in results.notes()
    assert cell_text(results, "Quiet", 0) == "not"


def test_train_metrics_can_be_columns(shop: Workshop, store: Store) -> None:
    shop.replace("Val: first/val/accuracy", "Val: first/train/loss")
    plan = shop.plan()
    finish(plan, store, train_metrics={"train/loss": 0.125})
    assert cell_text(collect(plan, store), "Quiet", 0) == "0.125"


def test_csv_and_json_and_markdown(shop: Workshop, store: Store) -> None:
    plan = shop.plan(seeds=[0, 1])
    finish(plan, store, {"val/loss": float("nan")})
    results = collect(plan, store)
    rows = list(csv.DictReader(io.StringIO(csv_table(results))))
    assert [row["kind"] for row in rows] == ["ours"] * 2 + ["baselines"] * 2 + ["paper"] * 2
    assert float(rows[0]["Top-1"]) == pytest.approx(0.905)
    assert rows[0]["Top-1 seeds"] == "2"
    data = results_json(results)
    text = json.dumps(data, allow_nan=False)  # would raise on a NaN
    assert json.loads(text)["ours"]["quiet"]["Top-1"]["values"] == {"0": 0.9, "1": 0.91}
    assert data["ours"]["quiet"]["Loss"]["mean"] is None
    assert data["claims"][0]["comparison"] == "quiet.Top-1 > noisy.Top-1"
    markdown = markdown_table(results)
    assert "| Quiet | 0.905 ± 0.007 | nan ± nan | 0.905 ± 0.007 |" in markdown
    assert "✓ quiet training answers better" in markdown


def test_a_column_of_some_variants_is_empty_in_the_others(shop: Workshop, store: Store) -> None:
    shop.replace("Val: first/val/accuracy", "Val: {metric: first/val/accuracy, variants: [noisy]}")
    plan = shop.plan()
    finish(plan, store)
    results = collect(plan, store)
    assert (cell_text(results, "Quiet", 0), cell_text(results, "Noisy", 0)) == ("–", "0.600")
    assert results.notes() == []
    shop.replace("variants: [noisy]", "variants: [loud]")
    with pytest.raises(ConfigError, match="there is no variant `loud`"):
        shop.plan()
