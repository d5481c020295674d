"""Figures show what was measured."""

from pathlib import Path

from matplotlib.figure import Figure

from vilau.study import figures
from vilau.study.events import Curve
from vilau.study.figures import COLOURS, Line, draw_curves


def drawn(panels: dict[str, list[Line]], tmp_path: Path, monkeypatch) -> Figure:
    """The figure itself, which is else written and forgotten."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    draw_curves(panels, tmp_path / "curves.png")
    return kept[0]


def test_a_value_that_stays_is_drawn_at_every_step_it_was_measured(tmp_path, monkeypatch) -> None:
    still = Curve([200, 400, 600], [0.0, 0.0, 0.0])
    lines = [Line("a", COLOURS[0], still), Line("b", COLOURS[1], Curve([200, 400, 600], [1, 2, 3]))]
    figure = drawn({"val/top1": lines}, tmp_path, monkeypatch)
    (axes,) = figure.axes
    shown = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert shown == {"a": [200, 400, 600], "b": [200, 400, 600]}


def test_a_value_that_is_logged_again_and_again_is_drawn_once(tmp_path, monkeypatch) -> None:
    steps = list(range(100))
    repeated = Curve(steps, [float(step // 50) for step in steps])
    figure = drawn({"val/top1": [Line("a", COLOURS[0], repeated)]}, tmp_path, monkeypatch)
    assert list(figure.axes[0].lines[0].get_xdata()) == [0, 50]


def test_the_legend_lies_below_all_panels_and_names_each_variant_once(
    tmp_path, monkeypatch
) -> None:
    nan = float("nan")
    lines = [Line(label, COLOURS[0], Curve([1, 2], [1.0, 2.0])) for label in ("a", "b")]
    broken = [Line("a", COLOURS[0], Curve([1, 2], [nan, nan]))]
    figure = drawn({"val/w": broken, "val/x": lines, "val/y": lines}, tmp_path, monkeypatch)
    assert all(axes.get_legend() is None for axes in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    figure.canvas.draw()
    alone = drawn({"val/x": lines[:1]}, tmp_path, monkeypatch)
    assert not alone.legends
    assert legend.get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in figure.axes)
