"""VBench's command lines: each is parsed as VBench 0.1.5 and its repository's script parse it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from vilau.apps.evaluation.drawing import VBENCH_DIMENSIONS, commands


def vbench_parser() -> argparse.ArgumentParser:
    """The options of ``vbench`` 0.1.5 (``vbench/cli``): a dimension is one word."""
    parser = argparse.ArgumentParser(prog="vbench", exit_on_error=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    evaluate = verbs.add_parser("evaluate", exit_on_error=False, allow_abbrev=False)
    for option in ("--output_path", "--full_json_dir", "--prompt", "--prompt_file", "--category"):
        evaluate.add_argument(option, type=str)
    for option in ("--videos_path", "--dimension"):
        evaluate.add_argument(option, type=str, required=True)
    evaluate.add_argument("--ngpus", type=int, default=1)
    evaluate.add_argument("--mode", choices=("custom_input", "vbench_standard", "vbench_category"))
    still = verbs.add_parser("static_filter", exit_on_error=False, allow_abbrev=False)
    still.add_argument("--videos_path", required=True)
    for option in ("--model", "--result_path", "--store_name", "--filter_scope"):
        still.add_argument(option, type=str)
    return parser


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    out = tmp_path / "my runs"
    return commands("vbench", tmp_path / "data dir", out, argparse.Namespace())


def test_each_dimension_has_a_line_that_vbench_parses(lines: list[str], tmp_path: Path) -> None:
    out = tmp_path / "my runs"
    asked = [
        vbench_parser().parse_args(shlex.split(line)[1:])
        for line in lines
        if line.startswith("vbench ")
    ]
    still, scored = asked[0], asked[1:]
    assert (still.verb, still.videos_path) == ("static_filter", str(out / "vbench"))
    assert [one.dimension for one in scored] == list(VBENCH_DIMENSIONS)
    assert len(set(VBENCH_DIMENSIONS)) == 16
    # Flickering is scored on the clips that the filter leaves, all others on what was drawn.
    filtered = str(Path(still.result_path) / "filtered_videos")
    seen = {one.dimension: one.videos_path for one in scored}
    assert seen.pop("temporal_flickering") == filtered
    assert set(seen.values()) == {str(out / "vbench")}
    # The front end hands these two on to a shell without quotes.
    for one in scored:
        assert shlex.split(one.output_path) == [str(out / "vbench_results")]
        assert shlex.split(one.full_json_dir) == [str(tmp_path / "data dir/VBench_full_info.json")]
    with pytest.raises(SystemExit):
        vbench_parser().parse_args(
            ["evaluate", "--videos_path", "x", "--dimension", *VBENCH_DIMENSIONS]
        )


def test_the_sum_is_made_of_a_zip_of_the_results(lines: list[str], tmp_path: Path) -> None:
    assert lines[0].startswith("pip install vbench==0.1.5 ")
    clone, packing, summing = lines[-3:]
    assert clone == "git clone https://github.com/Vchitect/VBench"
    out = tmp_path / "my runs"
    cd, _, into = packing.strip("()").partition(" && ")
    assert shlex.split(cd) == ["cd", str(out / "vbench_results")]
    assert shlex.split(into) == ["zip", "-r", "../vbench_results.zip", "."]
    parser = argparse.ArgumentParser(exit_on_error=False)  # of scripts/cal_final_score.py
    parser.add_argument("--zip_file", type=str, required=True)
    parser.add_argument("--model_name", type=str, required=True)
    python, script, *arguments = shlex.split(summing)
    assert (python, script) == ("python", "VBench/scripts/cal_final_score.py")
    found = parser.parse_args(arguments)
    assert Path(found.zip_file) == out / "vbench_results.zip"
