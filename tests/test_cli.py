"""The command line: what users type, what they see, and the exit codes."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.study.conftest import STUDIES, Workshop
from vilau import cli
from vilau.cli import main
from vilau.study.store import Store, run_lock, write_json

REPO = Path(__file__).parents[1]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "studies")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail as a user's mistake; return its one sentence."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "there is no verb `rnu`. Did you mean `run`?"),
        (["run"], "the following arguments are required: STUDY; see"),
        (
            ["run", "STUDY", "--sacle", "tiny"],
            "unknown argument `--sacle`. Did you mean `--scale`?",
        ),
        (["run", "STUDY", "--seeds", "0", "one"], "--seeds one: write a whole number from 0 on."),
        (["run", "STUDY", "--seeds", "1.5"], "--seeds 1.5: write a whole number from 0 on."),
        (["table", "STUDY", "--seeds", "0", "1", "00"], "--seeds 0 1 00: name each seed once."),
        (["plan", "STUDY", "--seeds", "0", "0"], "--seeds 0 0: name each seed once."),
        (["list", "nosuch"], "nosuch: there is no such folder; check the path."),
        (["list", "STUDY"], "toy.yaml is a file; name a folder."),
        (["list", "--runs", "nosuch"], "--runs nosuch: there is no such folder; check the path."),
        (["run", "STUDY", "--jobs", "0"], "--jobs 0: write a whole number from 1 on."),
        (
            ["run", "STUDY", "--scale", "huge"],
            "there is no scale `huge`. There is: `small`, `tiny`.",
        ),
        (["run", "STUDY", "--machine", "gpus"], "there is no machine `gpus`. Did you mean `gpu`?"),
        (
            ["run", "STUDY", "--only", "nosy"],
            "--only nosy: there is no variant `nosy`. Did you mean",
        ),
        (
            ["run", "STUDY", "--until", "frist"],
            "--until frist: there is no stage `frist`. Did you mean",
        ),
        (
            ["run", "STUDY", "--set", "first.model.lr"],
            "--set first.model.lr: write stage.key=value.",
        ),
        (["run", "nowhere.yaml"], "nowhere.yaml: there is no such study; check the path."),
        (["plan", "nowhere.yaml"], "nowhere.yaml: there is no such study"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml: there is no such stage config"),
        (["fit"], "the following arguments are required: --config"),
    ],
)
def test_mistakes_are_one_sentence_with_code_2(
    shop: Workshop, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    typed = [str(shop.path) if word == "STUDY" else word for word in arguments]
    assert message in error_of(capsys, *typed)


def test_a_runs_folder_that_cannot_be_written(
    shop: Workshop, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    message = error_of(capsys, "run", str(shop.path), "--runs", str(tmp_path / "file"))
    assert "cannot write there" in message
    assert message.endswith("name another folder.")


def test_a_gpu_machine_without_a_gpu(
    shop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vilau.study.session._count_devices", lambda: 0)
    message = error_of(capsys, "run", str(shop.path), "--machine", "gpu")
    assert message == ("--machine gpu needs a GPU and PyTorch sees none here; use --machine cpu.")


def test_a_full_disk_outside_a_stage(
    shop: Workshop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vilau.study.run.Engine.run", full)
    message = error_of(capsys, "run", str(shop.path), "--runs", str(tmp_path / "runs"))
    assert "the disk is full" in message


def test_plan(shop: Workshop, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", str(shop.path), "--runs", str(tmp_path), "--seeds", "0", "1"]) == 0
    out = capsys.readouterr().out
    assert "seeds [0, 1]: 12 stage runs, 12 different" in out
    assert "first · Noisy · seed 1" in out
    line = next(line for line in out.splitlines() if "second · Quiet · seed 0" in line)
    assert "to run" in line
    assert " 16 " in line
    assert " 128 " in line
    assert "→ model.checkpoint" in line


def test_plan_tells_the_time_of_what_is_still_to_do(
    shop: Workshop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def estimate(config: dict[str, Any]) -> dict[str, Any] | None:
        # Hours of the first, the second and the evaluating stage.
        hours = {"fit": 1.0 if config["inputs"] else 4.0, "test": 0.5}[config["command"]]
        kinds = {"1 CPU core": hours, "H100": hours / 100}
        if config["model"]["init_args"].get("width") == 9:
            return None
        return {"hours": kinds, "devices": devices, "memory_bytes_per_device": 1}

    def shown(cost: dict[str, Any], *, accelerator: str) -> dict[str, str]:
        kind = "1 CPU core" if accelerator == "cpu" else f"{cost['devices']} x H100"
        hours = cost["hours"]["1 CPU core" if accelerator == "cpu" else "H100"]
        return {"time": f"{hours:g} h ({kind})"}

    def last_line(*arguments: str) -> str:
        assert main(["plan", str(shop.path), "--runs", str(tmp_path), *arguments]) == 0
        return capsys.readouterr().out.strip().splitlines()[-1]

    devices = 1
    costs = SimpleNamespace(estimate=estimate, shown=shown, __spec__=object())
    monkeypatch.setitem(sys.modules, "toy_costs", costs)
    monkeypatch.setattr("vilau.study.forecast.COSTS", "toy_costs")
    monkeypatch.setattr("vilau.study.forecast.available_cores", lambda: 2)
    told = "time still to come, estimated: "
    # Two chains of 4, 1 and 0.5 hours; the runs of one wait for both first ones, which have gates.
    assert (
        last_line() == f"{told}11 h (1 CPU core) one run after another, 5.5 h with 2 side by side"
    )
    assert last_line("--only", "quiet") == f"{told}5.5 h (1 CPU core) one run after another"
    unknown = last_line("--set", "second.model.width=9")
    assert unknown.startswith(f"{told}9 h (1 CPU core) one run after another, 4.5 h with 2 side")
    assert unknown.endswith("; without 2 whose time is not known")
    devices = 8
    assert last_line("--machine", "gpu") == f"{told}0.11 h (8 x H100) one run after another"
    store = Store(tmp_path)
    first, second, *_ = shop.plan().runs
    store.run_dir(first).mkdir(parents=True)
    write_json(store.run_dir(first) / "metrics.json", {"finished": True, "metrics": {}})
    (store.run_dir(second) / "checkpoints").mkdir(parents=True)
    (store.run_dir(second) / "checkpoints" / "step=8.ckpt").touch()
    assert last_line("--only", "quiet") == (
        f"{told}1.5 h (1 CPU core) one run after another; what is begun is counted whole"
    )


def test_plan_tells_what_another_engine_runs(
    shop: Workshop, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = next(iter(shop.plan().runs))
    store = Store(tmp_path)
    (store.run_dir(run) / "checkpoints").mkdir(parents=True)
    (store.run_dir(run) / "checkpoints" / "step=8.ckpt").touch()
    write_json(store.run_dir(run) / "status.json", {"step": 12})
    for held, state in ((True, "running, at 12"), (False, "cut off at 12")):
        with run_lock(store.run_dir(run)) if held else contextlib.nullcontext():
            assert main(["plan", str(shop.path), "--runs", str(tmp_path)]) == 0
        assert capsys.readouterr().out.count(state) == 1


def test_table_of_a_study_that_was_not_run(
    shop: Workshop, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["table", str(shop.path), "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "not run" in out
    assert "quiet/evaluate has not been run." in out
    assert not (tmp_path / "runs").exists()


def test_list(shop: Workshop, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (shop.folder / "broken.yaml").write_text("study: broken\nstages: 3\n")
    assert main(["list", str(shop.folder), "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "toy.yaml" in out
    assert "0/6 runs" in out
    assert "Does noise in the first stage hurt the second?" in out
    assert "broken" in out
    assert "`stages` holds 3" in out


def test_list_says_what_it_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "none: there is no folder experiments/ here; `lightning list FOLDER` looks" in out
    assert "none: there is no folder runs/ here; the first `lightning run` makes it" in out
    (tmp_path / "runs").mkdir()
    assert main(["list", ".", "--runs", "runs"]) == 0
    assert capsys.readouterr().out.splitlines()[1::3] == ["  none", "  none"]


def test_check(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shop.path), str(shop.path), "--scale", "small"]) == 0
    assert capsys.readouterr().out.count("✓") == 6  # a study named twice counts once


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("run", "check", "plan", "table", "list", "fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert "example: " in capsys.readouterr().out


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("vilau 0")
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().out


def test_a_verb_of_the_apps_is_imported_for_itself_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "toy_app.py").write_text(
        "def add_parser(subparsers):\n"
        "    subparsers.add_parser('wave', help='wave').add_argument('--hands', type=int, default=1)\n"
        "def run(args):\n    print('hello', args.hands)\n    return 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "APPS", (("wave", "toy_app", "wave with hands"),))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "wave with hands" in capsys.readouterr().out
    assert "toy_app" not in sys.modules
    assert main(["wave", "--hands", "2"]) == 0
    assert capsys.readouterr().out == "hello 2\n"


def test_a_verb_of_another_package_is_handed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other_kit").mkdir()
    (tmp_path / "other_kit/__init__.py").write_text("")
    (tmp_path / "other_kit/entry.py").write_text(
        "import sys\ndef main_cli():\n    print(sys.argv[1:])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "OTHER_PACKAGE", "other_kit.entry")
    monkeypatch.setattr(sys, "argv", ["lightning"])
    assert main(["login", "--now"]) == 0
    assert capsys.readouterr().out == "['login', '--now']\n"


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("vilau.study.session.plans_text", interrupted)
    assert main(["plan", "x.yaml"]) == 130
    assert "stopped; the same command goes on from here." in capsys.readouterr().err


def test_tab_completion_sees_the_public_functions() -> None:
    code = (
        "import sys, vilau\n"
        "print([name for name in dir(vilau) if not name.startswith('_')], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.stdout.strip() == "['export', 'load', 'load_tokenizer', 'load_tower'] False", (
        done.stderr
    )


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom vilau.cli import main\n"
        f"main(['list', {str(STUDIES)!r}])\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    started_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started_s < 5
