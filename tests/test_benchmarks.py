"""Promise: every benchmark that the documents name runs, and its figures say of which commit they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pipeline import check_equal
from benchmarks.table import Report
from tasks.core.lineage import read_lineage
from tests.conftest import ROOT

# Whatever takes the options that all benchmarks share is one.
BENCHMARKS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if re.search(r"^    options = arguments\(", path.read_text(encoding="utf-8"), re.MULTILINE)
)
SHORT = ("alarms", "features")  # seconds; `make test` runs one of them, by the commit, and `make test-all` all
NEEDS = {  # what must have run before, on real data
    "calls": "run flights --as-of 2013-03-01",
    "serving": "run flights --as-of 2013-03-01",
    "soak": "run flights --as-of 2013-03-01",
    "releases": "run flights --as-of 2013-03-01",
    "hostile": "run flights --as-of 2013-03-01",
    "stages": "prepare assistant --profile smoke",
}
UNAVAILABLE = 2  # exit code: what it measures is not on this machine
TIMEOUT = 1200.0  # seconds; a benchmark's quick run takes a minute or two on an idle machine
METRICS = {"auc": 0.7, "brier": 0.1}


def in_turn() -> str:
    """The one that is run for this commit, whatever else is run."""
    commit = read_lineage(ROOT).commit
    return SHORT[int(commit[:8], 16) % len(SHORT)] if commit != "none" else SHORT[0]


def cases() -> list:
    return [pytest.param(name, marks=() if name == in_turn() else pytest.mark.long) for name in BENCHMARKS]


@pytest.fixture(scope="module")
def prepared() -> set[str]:
    """The commands that have run already in this world."""
    return set()


@pytest.mark.parametrize("name", cases())
def test_a_quick_run_comes_to_its_figures(name, tmp_path, prepared):
    """It ends well, and writes figures with the commit; what can't run on this machine says why and ends with 2."""
    if (needed := NEEDS.get(name)) and needed not in prepared:
        run(["-m", "cli.main", *needed.split()])
        prepared.add(needed)
    done = run(["-m", f"benchmarks.{name}", "--quick", "--json", str(tmp_path / "figures.json")], (0, UNAVAILABLE))
    if done.returncode == UNAVAILABLE:
        why = done.stderr.strip().splitlines()[-1]
        assert why.endswith(".")  # a sentence, no usage message
        pytest.skip(why)
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert written["figures"]
    assert written["commit"] == read_lineage(ROOT).commit
    assert written["commit"][:12] in done.stdout


def run(arguments: list[str], allowed: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode in allowed, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def test_every_benchmark_is_documented():
    """Its own first lines show how it is called, and the page of benchmarks has it, too."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert {"alarms", "features", "pipeline", "serving", "stages"} <= set(BENCHMARKS)
    assert set(SHORT) | set(NEEDS) - {"hostile"} <= set(BENCHMARKS)
    for name in BENCHMARKS:
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        assert re.search(rf"python -m benchmarks\.{name} .*\[--quick\]", source), name
    for name in set(re.findall(r"python -m benchmarks\.([a-z_]+)", page)):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


def test_a_report_names_the_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("Nothing", ["what"])
    report.row("one")
    report.figure("one", 1.0)
    report.finish(["pytest"], tmp_path / "figures.json")
    commit = read_lineage(ROOT).commit
    assert f"commit {commit[:12]}" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["commit"] == commit


def side(rows: int = 10, **metrics: float) -> dict:
    return {"metrics": METRICS | metrics, "train_rows": rows, "holdout_rows": 2, "quarantined": 0}


def test_a_metric_that_the_plain_script_lacks_is_named():
    """A metric that evaluation gains must be added to the plain script, not end in a KeyError."""
    assert check_equal(side(), side(auc=0.701)) == pytest.approx(0.001)
    with pytest.raises(RuntimeError, match=r"plain_flights\.py does not compute accuracy, macro_f1"):
        check_equal(side(), side(accuracy=0.9, macro_f1=0.5))
    with pytest.raises(RuntimeError, match="differ"):
        check_equal(side(), side(auc=0.8))
    with pytest.raises(RuntimeError, match="train_rows"):
        check_equal(side(), side(rows=11))


def test_the_plain_script_computes_the_metrics_of_evaluation():
    """Both sides of the pipeline's benchmark measure the same, on rows of both classes."""
    import numpy as np

    from benchmarks.plain_flights import measure as plain
    from tasks.train.metrics import compute_metrics

    random = np.random.default_rng(0)
    chances = random.random(500)
    outcomes = (random.random(500) < chances).astype(float)
    plain_metrics, platform_metrics = plain(outcomes, chances), compute_metrics(outcomes, chances, "classification")
    assert {name: plain_metrics[name] for name in platform_metrics} == pytest.approx(platform_metrics, abs=1e-9)
