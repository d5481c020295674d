"""Lines of a table out of one run's numbers, gates that stand at some scales, curves over the guidance scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.conftest import Workshop
from tests.study.test_results import cell_text
from vilau.errors import ConfigError
from vilau.study.curves import arrange
from vilau.study.expressions import parse
from vilau.study.figures import Bars, draw_scales
from vilau.study.report import write_report
from vilau.study.results import collect
from vilau.study.store import Store, write_json
from vilau.study.table import terminal_table

ROWS = """  rows:
    low: {label: "1", ending: _g1}
    high: {label: "2.5", ending: _g2.5}
"""
FID = {"test/fid_g1": 3.0, "test/fid_g2.5": 1.0, "test/fid_real": 0.5, "test/fid_empty": 400.0}


@pytest.fixture
def sweep(shop: Workshop) -> Workshop:
    """The toy study with a line per scale: one variant, one column."""
    text = shop.path.read_text()
    start, end = text.index("variants:"), text.index("claims:")
    table = (
        "variants:\n  quiet: {label: Quiet}\ntable:\n"
        + ROWS
        + "  columns:\n    FID: {metric: evaluate/test/fid, higher_is_better: false, format: .2f}\n"
        "  baselines:\n    real: {FID: evaluate/test/fid_real}\n"
        "  paper:\n    low: {FID: 14.1}\n    high: {FID: 13.0}\n"
    )
    claims = (
        "claims:\n  - {says: more is better, holds: 'min(high.FID, 9) < max(low.FID, real.FID)'}\n"
    )
    shop.path.write_text(text[:start] + table + claims)
    assert end > start
    return shop


def finish(shop: Workshop, store: Store, seeds: tuple[int, ...] = (0,)) -> None:
    for cell in shop.plan(seeds=seeds).cells:
        folder = store.run_dir(cell.run)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: value + cell.seed / 10 for name, value in FID.items()}
        content = {"finished": True, "metrics": {"val/accuracy": 0.9, **numbers}}
        write_json(folder / "metrics.json", content | {"passports": {}})


def test_rows_are_endings_of_one_runs_metrics(sweep: Workshop, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    finish(sweep, store, (0, 1))
    results = collect(sweep.plan(seeds=[0, 1]), store)
    assert [(row.name, row.label) for row in results.ours] == [("low", "1"), ("high", "2.5")]
    assert results.ours[1].cells["FID"].values == {0: 1.0, 1: 1.1}
    assert [(row.label, row.cells["FID"].mean) for row in results.paper] == [
        ("1", 14.1),
        ("2.5", 13.0),
    ]
    text = terminal_table(results)
    assert "1.05 ± 0.07" in text
    assert cell_text(results, "paper: 1", 0) == "14.1"
    assert cell_text(results, "paper: 2.5", 0) == "13.0"  # with its neighbour's decimals
    (claim,) = results.claims
    assert (claim.holds, claim.seeds_holding) == (True, 2)
    assert claim.shown == "min(1.05, 9) < max(3.05, 0.55)"


def test_a_row_that_was_not_logged_says_which(sweep: Workshop, tmp_path: Path) -> None:
    sweep.replace("_g2.5}", "_g9}")
    store = Store(tmp_path / "runs")
    finish(sweep, store)
    notes = collect(sweep.plan(), store).notes()
    assert any("logged no `test/fid_g9`" in note for note in notes)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("quiet: {label: Quiet}", "quiet: {label: Quiet}\n  noisy: {label: N}", "`table.rows` makes lines out of one"),
        ("ending: _g1}", "suffix: _g1}", "unknown key `suffix`"),
        (", ending: _g1}", "}", "table.rows.low lacks the key `ending`"),
        ("    low: {FID", "    lo: {FID", "unknown row `lo`. Did you mean `low`?"),
        ("    real: {", "    high: {", "`high` is a row; name it otherwise"),
        ("min(high.FID, 9)", "min high.FID", "cannot be read at `high.FID`"),
        ("min(high.FID, 9)", "min(high.FID 9)", "cannot be read at `9`"),
        ("min(high.FID, 9)", "quiet.FID", "names `quiet.FID`, which is not known"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(sweep: Workshop, old: str, new: str, told: str) -> None:
    sweep.replace(old, new)
    with pytest.raises(ConfigError) as error:
        sweep.plan()
    assert told in str(error.value)
    assert "toy.yaml:" in str(error.value)


def test_the_report_draws_curves_over_the_scale(sweep: Workshop, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    finish(sweep, store)
    results = collect(sweep.plan(), store)
    write_report(results, store, tmp_path / "report", command="x")
    assert (tmp_path / "report/evaluate_by_guidance.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report/index.html").read_text()
    assert "Over the guidance scale" in page
    assert "<td>2.5</td>" in page
    assert 'class="swatch"' not in page


def test_tags_over_the_guidance_scale_become_one_panel() -> None:
    tags = ["test/fid_g10", "test/fid_g1.25", "test/fid_g1", "test/fid_real", "test/odd_g2"]
    tags += ["val/x_d1", "val/x_d2"]
    found = arrange(tags, ())
    assert found.by_guidance == {
        "test/fid": {1.0: "test/fid_g1", 1.25: "test/fid_g1.25", 10.0: "test/fid_g10"}
    }
    assert list(found.by_guidance["test/fid"]) == [1.0, 1.25, 10.0]
    assert found.by_depth == {"val/x": {1: "val/x_d1", 2: "val/x_d2"}}
    assert found.measured == ["test/fid_real", "test/odd_g2"]


def test_references_far_from_a_curve_are_written_beside_it(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    drawn = []
    monkeypatch.setattr("vilau.study.figures._save", lambda figure, path: drawn.append(figure))
    bars = [Bars("a", "#111111", {"1": (2.0, 0.0), "1.5": (1.0, 0.1), "5": (4.0, 0.0)})]
    lines = {"fid": {"real": 0.5, "empty": 400.0}}
    draw_scales({"fid": bars, "score": bars}, lines, tmp_path / "x.png")
    one, other = drawn[0].axes
    assert [text.get_text() for text in one.texts] == ["empty 400"]
    assert one.get_ylim()[1] < 10
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["real", "a"]
    assert [label.get_text() for label in one.get_xticklabels()] == ["1", "1.5", "5"]
    assert not other.texts


def test_a_gate_can_stand_at_some_scales_alone(shop: Workshop) -> None:
    shop.replace("says: \"Below chance nothing can be compared.\"}", "scales: [small], says: later}")  # fmt: skip
    for scale, standing in (("tiny", 0), ("small", 1)):
        plan = shop.plan(scale=scale)
        (first,) = {c.run for c in plan.cells if (c.variant, c.stage) == ("quiet", "first")}
        assert len(plan.gates(first)) == standing
        assert (first in plan.after[_other_variants_second(plan)]) is bool(standing)


def _other_variants_second(plan) -> str:  # type: ignore[no-untyped-def]
    """A run that no input ties to the gated one: it waits for the gate alone."""
    cell = plan.cell("quiet", 0, "evaluate")
    return str(cell.run)


def test_the_smallest_and_the_largest_of_several() -> None:
    names = ["a.X", "b.X", "a.Y, odd"]
    claim = parse("min(a.X, 2 * b.X) < max(a.Y, odd, 1) and a.X > 0", names)
    assert claim.names() == ["a.X", "b.X", "a.Y, odd"]
    assert claim.value({"a.X": 5.0, "b.X": 1.0, "a.Y, odd": 3.0}) == 1.0
    assert claim.value({"a.X": 5.0, "b.X": 2.0, "a.Y, odd": 3.0}) == 0.0
    assert claim.show(lambda name: name) == "min(a.X, 2 * b.X) < max(a.Y, odd, 1) and a.X > 0"
    assert claim.margin({"a.X": 5.0, "b.X": 1.0, "a.Y, odd": 3.0}) == 1.0
