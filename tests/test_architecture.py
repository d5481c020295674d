"""The house rules that a machine can hold: who imports whom, sizes of files, what is never used.

A violation is told in a sentence that names the file and the rooms.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ROOT / "vilau"

EVERYTHING = "everything"
MAY_IMPORT: dict[str, set[str] | str] = {
    "errors": set(),
    "types": {"errors"},
    "layers": {"errors", "types"},
    "generation": {"errors", "types", "layers"},
    "models": {"errors", "types", "layers", "generation"},
    "world": {"errors", "types"},
    "data": {"errors", "types", "world"},
    "metrics": {"errors", "types", "world", "layers"},
    "training": {"errors", "types", "layers", "generation", "models"},
    "callbacks": {"errors", "types", "metrics"},
    "adapters": {"errors", "types", "models", "data"},
    "study": {"errors"},
    "costs": {"errors", "models"},
    "apps": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": {"cli"},
    "__init__": {"models"},
}
"""Room -> rooms it may import besides itself. ``costs`` reads the sizes in ``models`` that need no torch."""

FAMILIES = ("vila_u", "liquid", "vargpt")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

FORBIDDEN_MODULES = {
    "pickle": "weights are safetensors, everything else JSON",
    "cPickle": "weights are safetensors, everything else JSON",
    "dill": "weights are safetensors, everything else JSON",
    "joblib": "it pickles",
    "marshal": "it runs what it reads",
    "shelve": "it pickles",
    "torch.hub": "it runs code it downloads",
    "huggingface_hub": "models come through transformers, by folder or name",
}
FORBIDDEN_CALLS = {"eval": "it runs what it reads", "exec": "it runs what it reads"}
FORBIDDEN_KEYWORDS = {"trust_remote_code": "it runs code it downloads"}


def sources() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement of a file, wherever it stands, with the module it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node, name.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node, node.module or ""
            for name in node.names:
                yield node, f"{node.module}.{name.name}"


def room_problems(path: Path, source: str) -> list[str]:
    room, allowed = room_of(path), MAY_IMPORT.get(room_of(path))
    if allowed is None:
        return [
            f"{shown(path)} lies in room `{room}`, which MAY_IMPORT does not know; give it a line there."
        ]
    problems = []
    for node, module in imports(ast.parse(source)):
        words = module.split(".")
        # `from vilau import x` names a room only where x is one.
        if words[0] != "vilau" or len(words) < 2 or words[1] not in MAY_IMPORT:
            continue
        other = words[1]
        if other == room or allowed == EVERYTHING or other in allowed:
            continue
        may = ", ".join(sorted(allowed)) or "no other room"
        problems.append(
            f"{shown(path)}:{node.lineno} imports {module}: room `{room}` may import {may}, not `{other}`."
        )
    return sorted(set(problems))


def family_problems(path: Path, source: str) -> list[str]:
    parts = path.relative_to(HOUSE).parts
    if parts[0] != "models" or parts[1] not in FAMILIES:
        return []
    found = {
        (node.lineno, other)
        for node, module in imports(ast.parse(source))
        for other in FAMILIES
        if other != parts[1] and f"{module}.".startswith(f"vilau.models.{other}.")
    }
    return [
        f"{shown(path)}:{line} lets family `{parts[1]}` import family `{other}`; what both need belongs "
        "in vilau/layers, vilau/generation or vilau/models itself."
        for line, other in sorted(found)
    ]


def relative_problems(path: Path, source: str) -> list[str]:
    return [
        f"{shown(path)}:{node.lineno} imports relatively; write the full name, vilau.{room_of(path)}…"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def late_problems(path: Path, source: str) -> list[str]:
    """Imports below the top of a file without a reason in a comment beside or above them.

    In ``cli`` and ``apps`` one reason serves all: the command line answers before anything heavy loads.
    """
    lines = source.splitlines()
    problems = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Import | ast.ImportFrom) or has_reason(lines, node.lineno):
                continue
            name = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
            if (
                room_of(path) in ("cli", "apps")
                and name.split(".")[0] not in sys.stdlib_module_names
            ):
                continue
            problems.append(
                f"{shown(path)}:{node.lineno} imports {name} inside `{function.name}` and gives no reason; "
                "move it to the top, or say why in a comment."
            )
    return sorted(set(problems))


def has_reason(lines: list[str], number: int) -> bool:
    """Look for a comment on the line, or above the block of imports it stands in."""
    if "#" in lines[number - 1]:
        return True
    for line in reversed(lines[: number - 1]):
        if line.strip().startswith("#"):
            return True
        if line.strip() and not line.strip().startswith(("import ", "from ", "try:")):
            return False
    return False


def size_problems(path: Path, source: str) -> list[str]:
    length = len(source.splitlines())
    problems = []
    if length > MAX_FILE_LINES:
        problems.append(
            f"{shown(path)} has {length} lines; split it, {MAX_FILE_LINES} is the most."
        )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            words = (body[0].end_lineno or 0) - body[0].lineno + 1 if documented else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - words
            if lines > MAX_FUNCTION_LINES:
                problems.append(
                    f"{shown(path)}:{node.lineno} `{node.name}` has {lines} lines without its docstring; "
                    f"split it, {MAX_FUNCTION_LINES} is the most."
                )
    return problems


def forbidden_problems(path: Path, source: str) -> list[str]:
    tree = ast.parse(source)
    problems = [
        f"{shown(path)}:{node.lineno} imports {module}: {why}."
        for node, module in imports(tree)
        for name, why in FORBIDDEN_MODULES.items()
        if module == name or module.startswith(f"{name}.")
    ]
    for node in ast.walk(tree):
        # get_dir only tells where files would lie
        if (
            isinstance(node, ast.Attribute)
            and node.attr != "get_dir"
            and ast.unparse(node.value) == "torch.hub"
        ):
            name = ast.unparse(node)
            problems.append(f"{shown(path)}:{node.lineno} uses {name}: it runs code it downloads.")
        if isinstance(node, ast.Call):
            problems += call_problems(path, node)
    return sorted(set(problems))


def call_problems(path: Path, call: ast.Call) -> list[str]:
    name, keywords = ast.unparse(call.func), {word.arg: word.value for word in call.keywords}
    place = f"{shown(path)}:{call.lineno}"
    problems = [f"{place} calls {name}: {why}." for n, why in FORBIDDEN_CALLS.items() if n == name]
    problems += [
        f"{place} passes {n}: {why}." for n, why in FORBIDDEN_KEYWORDS.items() if n in keywords
    ]
    safe = keywords.get("weights_only")
    if name == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
        problems.append(f"{place} calls torch.load without weights_only=True: it unpickles.")
    if name == "yaml.load" or (name in ("np.load", "numpy.load") and "allow_pickle" in keywords):
        problems.append(f"{place} calls {name}: it builds any object the file names.")
    shell = keywords.get("shell")
    if name == "os.system" or (isinstance(shell, ast.Constant) and shell.value is True):
        problems.append(f"{place} calls {name} through a shell; give a list of arguments.")
    return problems


RULES = (
    room_problems,
    family_problems,
    relative_problems,
    late_problems,
    size_problems,
    forbidden_problems,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_rule(rule) -> None:  # type: ignore[no-untyped-def]
    problems = [
        problem for path in sources() for problem in rule(path, path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_every_room_of_the_matrix_is_seen() -> None:
    seen = {room_of(path) for path in sources()}
    assert len(sources()) > 80
    assert seen == set(MAY_IMPORT), "MAY_IMPORT and the folders of vilau/ differ"


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in sources()}
    assert [shown(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("file", "source", "sentence"),
    [
        ("layers/a.py", "from vilau.training.tower import X", "room `layers` may import errors, types, not `training`"),
        ("layers/a.py", "def f():\n    import vilau.data.x  # reason", "vilau/layers/a.py:2 imports vilau.data.x"),
        ("world/a.py", "if TYPE_CHECKING:\n    from vilau import models", "room `world` may import"),
        ("study/a.py", "from vilau.models.sizes import X", "room `study` may import errors, not `models`"),
        ("cellar/a.py", "", "room `cellar`, which MAY_IMPORT does not know"),
        ("models/liquid/a.py", "from vilau.models.vila_u.head import X", "lets family `liquid` import family `vila_u`"),
        ("models/liquid/a.py", "from vilau.models import vargpt", "lets family `liquid` import family `vargpt`"),
        ("data/a.py", "from . import x", "vilau/data/a.py:1 imports relatively"),
        ("data/a.py", "def f():\n    import torch\n", "imports torch inside `f` and gives no reason"),
        ("data/a.py", "x = 1\n" * 401, "vilau/data/a.py has 401 lines"),
        ("data/a.py", "def f():\n" + "    x = 1\n" * 60, "`f` has 61 lines"),
        ("apps/a.py", "def f():\n    import random", "imports random inside `f`"),
        ("data/a.py", "import pickle", "imports pickle: weights are safetensors"),
        ("data/a.py", "from torch import hub", "imports torch.hub"),
        ("data/a.py", "import torch\ntorch.hub.load('x')", "uses torch.hub.load"),
        ("data/a.py", "eval('1')", "calls eval"),
        ("data/a.py", "torch.load('x')", "torch.load without weights_only=True"),
        ("data/a.py", "AutoModel.from_pretrained('x', trust_remote_code=True)", "passes trust_remote_code"),
        ("data/a.py", "subprocess.run('ls', shell=True)", "through a shell"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_told_in_a_sentence(file: str, source: str, sentence: str) -> None:
    problems = [problem for rule in RULES for problem in rule(HOUSE / file, source)]
    assert any(sentence in problem for problem in problems), problems
    assert all(problem.startswith(f"vilau/{file}") for problem in problems)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "models/a.py",
            "from vilau.layers.x import X\nmodel.eval()\ntorch.load('x', weights_only=True)",
        ),
        ("cli.py", "def f():\n    from vilau.study.run import x  # noqa: PLC0415 - torch"),
        (
            "data/a.py",
            "def f():\n    # large\n    try:\n        import x\n        import y\n    finally:\n        pass",
        ),
        ("apps/a.py", "def f():\n    import torch"),
        ("data/a.py", "torch.hub.get_dir()"),
        ("models/vila_u/a.py", "from vilau.models.vila_u.head import X"),
        ("data/a.py", "def f():\n    '''" + "words\n" * 80 + "'''\n    return 1"),
    ],
)
def test_what_the_rules_allow(file: str, source: str) -> None:
    assert [problem for rule in RULES for problem in rule(HOUSE / file, source)] == []


# ---------------------------------------------------------------------- what importing does


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_planning_a_study_imports_no_torch() -> None:
    heavy = ("torch", "lightning", "transformers", "numpy")
    modules = "vilau.cli, vilau.study.plan, vilau.study.load, vilau.study.table, vilau.study.overview, vilau.costs"
    assert (
        run_python(f"import {modules}, sys; print([m for m in {heavy} if m in sys.modules])")
        == "[]"
    )


IMPORT_ALL = """
import importlib, os, random, sys
import numpy, torch, lightning.pytorch, transformers
names = sys.argv[1:]
def state():
    return (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate(),
            dict(torch.nn.Linear.__dict__), torch.get_default_dtype(), torch.get_num_threads(), dict(os.environ),
            torch.are_deterministic_algorithms_enabled())
random.seed(1); numpy.random.seed(2); torch.manual_seed(3)
before = state()
for name in names:
    importlib.import_module(name)
    if state() != before:
        sys.exit(f"importing {name} changes the state outside it (random numbers, torch, environment)")
"""


def test_importing_changes_nothing_outside() -> None:
    names = [
        shown(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path in sources()
        if path.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"importing the package prints: {done.stdout}"
