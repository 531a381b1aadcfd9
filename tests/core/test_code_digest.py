"""Promise: an output is made anew when the code that made it changes, and for no other change."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tasks.core.code_digest import (
    DISTRIBUTIONS,
    SourceTree,
    cache_key,
    code_digest,
    imports_of,
    installed_version,
)
from tests.conftest import ROOT

SOURCES = sorted(path for package in ("services", "tasks") for path in (ROOT / package).rglob("*.py"))
# The caches of the stages: where each key's code begins. A new one is listed here, with a file that it depends on.
CACHES = {
    "tasks.data.sources": "tasks/data/config.py",
    "tasks.data.tabular.validation_run": "tasks/data/tabular/expectations.py",
    "tasks.data.origins.labelled_texts": "tasks/guard/ngrams.py",
    "tasks.data.snapshots": "tasks/core/files.py",
    "tasks.data.language.base_model": "tasks/language/gguf_writer.py",
    "tasks.data.language.curate": "tasks/data/language/splits.py",
    "tasks.knowledge.documents.curate": "tasks/knowledge/documents/reading.py",
    "tasks.knowledge.index.build": "tasks/knowledge/documents/markdown.py",
    "tasks.features.tables": "tasks/features/sql.py",
    "tasks.features.training_frame": "tasks/features/offline_store.py",
    "tasks.features.online": "tasks/features/online_store.py",
    "tasks.train.tabular.fit": "tasks/train/tabular/model_file.py",
    "tasks.train.tabular.imported": "tasks/train/tabular/scoring.py",
    "tasks.train.language.tune": "tasks/language/gguf_writer.py",
    "tasks.train.language.run_stage": "tasks/train/language/stages.py",
    "tasks.train.language.imported": "tasks/language/gguf_writer.py",
    "tasks.train.language.practice": "tasks/knowledge/answers/answerer.py",
    "tasks.train.language.untuned": "tasks/train/candidates.py",
    "tasks.evaluate.language.responses": "tasks/language/engine.py",
    "tasks.evaluate.language.response_cache": "tasks/language/engine.py",
    "tasks.evaluate.language.logprobs": "tasks/train/language/model.py",
    "tasks.evaluate.language.llm_judge": "tasks/language/messages.py",
    "tasks.evaluate.language.genai_report": "tasks/language/answer_scoring.py",
    "tasks.search.language.problem": "tasks/knowledge/answers/extract.py",
    "tasks.search.tabular.problem": "tasks/train/tabular/scoring.py",
    "tasks.evaluate.tabular.gates": "tasks/statistics/single_column.py",
    "tasks.evaluate.tabular.baselines": "tasks/train/classes.py",
    "tasks.evaluate.language.gates": "tasks/language/engine.py",
    "tasks.monitor.tabular.measure": "tasks/monitor/drift.py",
    "tasks.monitor.language.measure": "tasks/language/embedder.py",
}
# What no cache may depend on: orchestration, what serves, and what runs for long.
NO_STAGE = ("services", "tasks/backtest")
KEYS = ("cache_key", "code_digest")


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    tree = SourceTree(ROOT)
    return {module: tree.digest(module) for module in CACHES}


def changed_by(path: str, copy: Path, before: dict[str, str]) -> set[str]:
    """The caches that a change of one file empties."""
    for package in ("services", "tasks"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / path).open("a", encoding="utf-8") as stream:
        stream.write("\nCHANGED = True\n")
    tree = SourceTree(copy)
    return {module for module in CACHES if tree.digest(module) != before[module]}


@pytest.mark.parametrize("module", CACHES)
def test_a_file_that_it_imports_changes_the_key(module, tmp_path, before):
    """Also through other modules, and through a name in a text."""
    assert module in changed_by(CACHES[module], tmp_path, before)


@pytest.mark.parametrize(
    "path", [path for path in map(str, (p.relative_to(ROOT) for p in SOURCES)) if path.startswith(NO_STAGE)]
)
def test_what_serves_changes_no_key(path, tmp_path, before):
    """A change of the gateway retrains, asks and measures nothing."""
    assert changed_by(path, tmp_path, before) == set()


@pytest.mark.parametrize(
    ("path", "emptied"),
    [
        (
            "tasks/language/gguf_writer.py",
            "data.language.base_model train.language.tune train.language.imported search.language.problem",
        ),
        (
            "tasks/language/engine.py",
            "train.language.untuned evaluate.language.responses evaluate.language.response_cache "
            "search.language.problem "
            "evaluate.language.gates monitor.tabular.measure monitor.language.measure",
        ),
        (
            "tasks/train/tabular/fit.py",
            "train.tabular.fit train.tabular.imported train.language.imported evaluate.tabular.gates "
            "search.tabular.problem",
        ),
        ("tasks/monitor/drift.py", "monitor.tabular.measure monitor.language.measure"),
        ("tasks/core/prefect.py", ""),
        ("tasks/train/task.py", ""),
    ],
    ids=lambda value: value if value.endswith(".py") else "",
)
def test_a_change_empties_the_caches_of_its_importers(path, emptied, tmp_path, before):
    """A mended GGUF writer writes weights anew and learns nothing anew; other sampling asks anew; no more than that."""
    assert changed_by(path, tmp_path, before) == {f"tasks.{name}" for name in emptied.split()}


def test_a_key_changes_with_its_inputs():
    keys = {cache_key(module, inputs) for module in CACHES for inputs in ([], [1], {"a": 1}, "1")}
    assert len(keys) == 4 * len(CACHES)
    assert cache_key("tasks.data.tabular.validation_run", {"a": 1, "b": 2}) == cache_key(
        "tasks.data.tabular.validation_run", {"b": 2, "a": 1}
    )


def test_a_module_that_is_not_there_has_no_key():
    """A renamed module is an error, not a key without code."""
    with pytest.raises(ValueError, match=r"tasks\.train\.tabellar"):
        code_digest("tasks.train.tabellar")


def keys_in(path: Path) -> Iterator[ast.expr]:
    """The first argument of each call that makes a key."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KEYS:
            yield node.args[0]


def test_every_cache_is_listed():
    """Each key of our code names where it begins, and that module is in the list above, so that it is tested."""
    used, unclear = set(), []
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        constants = dict(re.findall(r'^([A-Z_]+) = "(tasks\.[\w.]+)"', path.read_text(encoding="utf-8"), re.MULTILINE))
        for argument in keys_in(path):
            text = ast.unparse(argument)
            if text == "__name__":
                used.add(name)
            elif text in constants:
                used.add(constants[text])
            else:
                unclear.append(f"{name}: {text}")
    # these two pass on what their callers name, by `__name__`, too
    assert unclear == [
        "tasks.core.code_digest: module",
        "tasks.monitor.signal: module",
        "tasks.train.tabular.fit: self.module",
    ]
    assert used | {
        "tasks.monitor.tabular.measure",
        "tasks.monitor.language.measure",
        "tasks.train.tabular.fit",
        "tasks.train.tabular.imported",
    } == set(CACHES)


def test_no_key_names_files_by_hand():
    """No other way than the closure: no digest of a module's own file, no number to raise by hand."""
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"file_digest\(.*__file__|__file__\)\.parent\.glob|^VERSION = \d|^FORMAT = \d", line)
        and path.name != "archive.py"  # a backup's format is read by other versions
    ]
    assert not wrong


def test_prefect_keeps_no_result():
    """One cache: what Prefect would keep could disagree with ours."""
    text = (ROOT / "tasks/core/prefect.py").read_text(encoding="utf-8")
    assert "persist_result=False" in text
    assert "cache_policy=NO_CACHE" in text
    others = [
        path for path in SOURCES if re.search(r"cache_key_fn|persist_result=True", path.read_text(encoding="utf-8"))
    ]
    assert not others


def statements(body: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that Python's parser finds, but for those of type checking."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.orelse)
        else:
            yield from statements(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_patterns_find_what_the_parser_finds(path):
    """Imports at the top, in functions, over several lines, with comments and other names."""
    source = path.read_text(encoding="utf-8")
    names: set[str] = set()
    for node in statements(ast.parse(source).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    own_modules = {name for name in names if name.startswith(("tasks.", "services."))}
    packages = {name.partition(".")[0] for name in names - own_modules} - sys.stdlib_module_names
    found, others = imports_of(source)
    assert own_modules <= found
    assert others == packages


def test_names_in_texts_are_followed():
    """A module started by -m, and a class that another package imports by its name."""
    found, _ = imports_of(
        'run([sys.executable, "-m", "tasks.language.engine"])\nSTORE = "tasks.features.online.Store"\n'
    )
    assert {"tasks.language.engine", "tasks.features.online"} <= found


def test_another_version_of_an_imported_package_changes_the_key(monkeypatch, before):
    """scikit-learn's version is part of what trains a table, and pytest's of nothing."""
    versions = {"sklearn": "0"}
    original = installed_version
    monkeypatch.setattr(
        "tasks.core.code_digest.installed_version", lambda package: versions.get(package) or original(package)
    )
    after = {module: SourceTree(ROOT).digest(module) for module in CACHES}
    changed = {module for module in CACHES if after[module] != before[module]}
    assert {"tasks.train.tabular.fit", "tasks.train.tabular.imported", "tasks.evaluate.tabular.gates"} <= changed
    assert not changed & {
        "tasks.data.tabular.validation_run",
        "tasks.data.sources",
        "tasks.features.training_frame",
        "tasks.evaluate.language.responses",
    }
    versions.clear()
    versions["pytest"] = "0"
    assert {module: SourceTree(ROOT).digest(module) for module in CACHES} == before


def test_every_imported_package_has_a_version():
    """An import name that is not the name of what is installed stands in the table."""
    packages = set().union(*(imports_of(path.read_text(encoding="utf-8"))[1] for path in SOURCES))
    assert {"sklearn", "torch", "xllamacpp"} <= packages
    assert not [package for package in packages if installed_version(package) == "none"]
    installed = packages_distributions()
    assert {name for name in DISTRIBUTIONS if DISTRIBUTIONS[name] in installed[name]} == set(DISTRIBUTIONS)


def test_help_computes_no_digest():
    """`driftline --help` does not read our own source."""
    code = "import sys, cli.main; print('tasks.core.code_digest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_imports_of_every_form_are_read():
    """Parentheses, comments, several names in a line, and imports for type checking alone."""
    source = """
from tasks.a import (  # why
    one,  # and why this
    two as other,
)
import numpy as np, yaml  # both
if TYPE_CHECKING:
    from tasks.b import never

    import pandas
def work():
    from tasks.c.d import three
"""
    own_modules, packages = imports_of(source)
    assert own_modules >= {"tasks.a", "tasks.a.one", "tasks.a.two", "tasks.c.d", "tasks.c.d.three"}
    assert not [name for name in own_modules if "never" in name or "tasks.b" in name]
    assert {"numpy", "yaml"} <= packages
    assert "pandas" not in packages
