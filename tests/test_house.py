"""The rules of the house, checked against the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["tasks", "services", "flows", "cli"]
STAGES = [
    "core",
    "statistics",
    "language",
    "guard",
    "data",
    "features",
    "knowledge",
    "train",
    "evaluate",
    "release",
    "search",
    "predict",
    "monitor",
    "backtest",
    "govern",
]
SERVICES = ["store", "serving", "runtime", "rollout", "gateway"]
SOURCES = sorted(path for part in (*FLOORS, "benchmarks") for path in (ROOT / part).rglob("*.py"))
OWN_MODULE = re.compile(rf"(?:{'|'.join(FLOORS)})(?:\.\w+)+")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def named(path: Path) -> set[str]:
    """Every module of ours that stands in a string, for `python -m` or a class path."""
    strings = (n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant))
    return {
        text.partition(":")[0]
        for text in strings
        if isinstance(text, str) and OWN_MODULE.fullmatch(text.partition(":")[0])
    }


def place(module: str) -> tuple[int, int]:
    """A module's floor, and its package's position on it; later ones may import earlier ones."""
    floor, _, rest = module.partition(".")
    packages = {"tasks": STAGES, "services": SERVICES}.get(floor, [])
    package = rest.partition(".")[0]
    return FLOORS.index(floor), packages.index(package) if package in packages else 0


def test_prefect_stays_in_flows_and_task_files():
    """Stage code knows no orchestrator; what starts or reaches its server does."""
    allowed = {p for p in SOURCES if p.relative_to(ROOT).parts[0] in ("benchmarks", "cli", "flows")}
    allowed |= {
        p for p in SOURCES if p.name in ("task.py", "compat.py", "prefect.py", "prefect_api.py", "prefect_server.py")
    }
    offenders = [p for p in SOURCES if p not in allowed and any(m.split(".")[0] == "prefect" for m in imports(p))]
    assert not offenders
    assert any("prefect" in imports(p) for p in SOURCES)


def test_modules_use_only_lower_floors_and_earlier_packages():
    """Nothing reaches up or back, by import or by a module's name in a string."""
    for floor, packages in (("tasks", STAGES), ("services", SERVICES)):
        folders = {p.name for p in (ROOT / floor).iterdir() if p.is_dir() and p.name != "__pycache__"}
        assert folders == set(packages)
    wrong = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "benchmarks":
            continue
        for module in imports(path) | named(path):
            top = module.partition(".")[0]
            if top in ("benchmarks", "tests") or (top in FLOORS and place(module) > place(".".join(parts))):
                wrong.append(f"{path.relative_to(ROOT)} uses {module}")
    assert not wrong


BANNED = {
    *("told", "said", "asked", "given", "made", "kept", "here", "ours", "theirs"),
    *("whoever", "telling", "answering", "apart", "elsewhere"),
}
CALLBACKS = {"connection_made"}  # asyncio calls it by this name
MAX_PARAMETERS, MAX_LINES = 6, 300
EVERYTHING = sorted(
    path
    for part in ("flows", "tasks", "services", "cli", "benchmarks", "tests", "deployments")
    for path in (ROOT / part).rglob("*.py")
)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[str]:
    arguments = node.args
    variadic = [arg for arg in (arguments.vararg, arguments.kwarg) if arg]
    return [arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *variadic)]


def bound_names(path: Path) -> set[str]:
    """The names that a file binds: functions, classes, parameters, variables and attributes; not imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names |= set(parameters(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
    return names


def long_signatures(path: Path) -> list[str]:
    """Functions with too many parameters, except tests, decorated commands and routes, and library overrides."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    overrides = {
        method
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.bases
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name != "__init__"
    }
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(set(parameters(node)) - {"self", "cls"}) > MAX_PARAMETERS
        and not node.name.startswith("test_")
        and not any(re.match(r"app\.|\w+\.(command|get|post|put|delete)", ast.unparse(d)) for d in node.decorator_list)
        and node not in overrides
    ]


def test_names_use_no_banned_word():
    """A name says what a thing is, not what happened to it."""
    wrong = []
    for path in EVERYTHING:
        names = {*bound_names(path), *path.relative_to(ROOT).with_suffix("").parts} - CALLBACKS
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if BANNED & set(name.lower().split("_"))]
    assert not wrong


def test_no_function_has_more_than_six_parameters():
    """What travels together is one object."""
    long = {path: long_signatures(path) for path in EVERYTHING}
    assert not {path: names for path, names in long.items() if names}


def test_no_file_has_more_than_300_lines():
    """Files are short enough to be read at once; blank lines do not count."""
    lengths = {path: sum(map(bool, map(str.strip, path.read_text("utf-8").splitlines()))) for path in EVERYTHING}
    assert not {path: length for path, length in lengths.items() if length > MAX_LINES}


# Modules without an underscore that their packages do not document.
INTERNALS = ("mlflow.db", "mlflow.server", "mlflow.store", "prefect.context", "prefect.server", "trl.trainer")


def test_private_names_are_imported_in_compat_alone():
    """Private modules and names of other packages stand in compat.py, where a contract test covers them."""
    private = []
    for path in SOURCES:
        if path.name == "compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            else:
                continue
            private += [f"{path.relative_to(ROOT)}: {name}" for name in names if re.match(r"_(?!_)", name)]
        if not path.is_relative_to(ROOT / "benchmarks"):
            internal = [name for name in imports(path) if name.startswith(INTERNALS)]
            private += [f"{path.relative_to(ROOT)}: {name}" for name in internal]
    assert not private


def test_no_case_is_named_in_code():
    """All that is particular to a case stands in its folder."""
    cases = [path.parent.name for path in (ROOT / "configs").glob("*/case.yaml")]
    assert {"flights", "credit"} <= set(cases)
    naming = [
        f"{path.relative_to(ROOT)}: {case}"
        for path in SOURCES
        if not path.is_relative_to(ROOT / "benchmarks")
        for case in cases
        if re.search(rf"\b{case}\b", path.read_text(encoding="utf-8"))
        and (path, case)
        != (ROOT / "tasks/language/messages.py", "assistant")  # a role of every chat, named there alone
    ]
    assert not naming


def test_init_files_are_empty():
    """Nothing happens at import."""
    assert not [p for p in SOURCES if p.name == "__init__.py" and p.read_text(encoding="utf-8").strip()]


FOLDERS = [path for path in ROOT.iterdir() if path.name not in (".venv", ".driftline", ".git", "node_modules")]
YAMLS = sorted(
    p for each in FOLDERS for p in ([each] if each.is_file() else each.rglob("*")) if p.suffix in (".yaml", ".yml")
)


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_yaml_reads(path):
    """Every YAML file of the repository can be read."""
    assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None


def test_some_yaml_was_found():
    """The test above tests something."""
    assert len(YAMLS) >= 4


def test_no_name_of_a_test_is_longer_than_a_line(request):
    """A parameter that is a long text has an id: its name is printed, and stands in logs."""
    assert not [item.nodeid[:200] for item in request.session.items if len(item.nodeid) > 200]


def test_help_answers_without_heavy_imports():
    """`driftline --help` imports none of the packages that cost seconds."""
    heavy = [
        "prefect",
        "mlflow",
        "feast",
        "torch",
        "sklearn",
        "great_expectations",
        "evidently",
        "bentoml",
        "dvc",
        "pandas",
        "duckdb",
    ]
    code = f"import sys, cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
