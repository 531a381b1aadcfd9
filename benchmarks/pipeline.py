"""Prepare to evaluate as a flow, against one plain script that does the same work (benchmarks/plain_flights.py).

    python -m benchmarks.pipeline [--quick] [--json FILE]

A Prefect server of its own is up. Warm: in one process that has run both once, they take turns; each flow starts from
an empty state folder, and validates, stores, records and reports, which the plain script does not. Ten times the rows:
the same flights with other flight numbers as one CSV file, in a case folder made here. Cold: `driftline train` as a
whole process, with an empty state folder; then once more with nothing changed.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, median

REQUIRED = {
    "flow_over_plain_1x": "<= 2",
    "flow_over_plain_10x": "<= 1.3",
    "cold_seconds": "<= 45",
    "rerun_seconds": "<= 12",
}
CASE = "flights"
YEAR, MONTHS = "2014-01-02", "2013-03-01"  # as-of with the whole year's flights and outcomes known, or two months'
TIMES = 10
REJECTED = 3  # exit code of a verdict other than promote: all the work is done then, too


def main() -> None:
    options = arguments("Prepare to evaluate as a flow against a plain script.")
    if options.one:
        print(json.dumps(compare(**json.loads(options.one))))
        return
    as_of = MONTHS if options.quick else YEAR
    report = Report(
        f"Raw files to a judged model, flights as of {as_of}",
        ["flights", "what", "seconds (median)", "CPU seconds", "runs", "peak MB", "hold-out AUC"],
        REQUIRED,
    )
    with tempfile.TemporaryDirectory(prefix="driftline-pipeline-") as name:
        home = Path(name)
        cases = Path(__file__).resolve().parents[1] / "configs"
        with prefect_server(home):
            warm(report, "flow_over_plain_1x", home, cases, as_of, runs=1 if options.quick else 3)
            if not options.quick:
                shutil.rmtree(home / "warm")
                warm(report, "flow_over_plain_10x", home, make_tenfold(cases, home / "cases"), as_of, runs=1)
                shutil.rmtree(home / "warm")
            process(report, home, as_of)
    report.finish(["prefect", "duckdb", "great-expectations", "feast", "dvc", "scikit-learn", "mlflow"], options.json)


def warm(report: Report, figure: str, home: Path, cases: Path, as_of: str, runs: int) -> None:
    """Compare flow and plain script in a process of their own; a row each, and the ratio of their medians."""
    found = in_own_process("benchmarks.pipeline", home=str(home / "warm"), cases=str(cases), as_of=as_of, runs=runs)
    medians = {}
    for what in ("plain script", "flow, warm"):
        took = found[what]
        medians[what] = median(took["seconds"])
        auc = f"{took['metrics']['auc']:.6f}"
        report.row(found["flights"], what, medians[what], median(took["cpu"]), runs, took["peak"], auc)
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in took["parts"].items() if seconds >= 0.05)
        report.notes.append(f"{what}, {found['flights']:,} flights, last run: {parts}")
        print(f"    {parts}", flush=True)
    report.figure(figure, medians["flow, warm"] / medians["plain script"])
    differences = check_equal(found["plain script"], found["flow, warm"])
    report.notes.append(f"same rows on both sides; the metric that differs most differs by {differences:.1g}")


def process(report: Report, home: Path, as_of: str) -> None:
    """Run the command line twice as a whole process: from an empty state folder, and with nothing changed."""
    os.environ.update(DRIFTLINE_STATE=str(home / "cold"), DRIFTLINE_DATA=str(home / "cold" / "data"))
    for what, figure in (("whole process, cold", "cold_seconds"), ("again, nothing changed", "rerun_seconds")):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "train", CASE, "--as-of", as_of], capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        if done.returncode not in (0, REJECTED):
            raise RuntimeError(f"driftline train ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        report.row("", what, seconds, cpu_of(resource.getrusage(resource.RUSAGE_CHILDREN), before), 1, "", "")
        report.figure(figure, seconds)


def compare(home: str, cases: str, as_of: str, runs: int) -> dict[str, Any]:
    """Let flow and plain script take turns in this process; the first turn only imports and is not counted."""
    os.environ.update(DRIFTLINE_STATE=f"{home}/first", DRIFTLINE_DATA=f"{home}/first/data")
    os.environ["PREFECT_HOME"] = f"{home}/prefect"  # read once, so it must outlast the states
    from services.runtime.prefect_api import reach_prefect
    from tasks.core.settings import apply_environment, settings

    apply_environment(settings())
    if not reach_prefect():
        raise RuntimeError(f"No Prefect server answers at {settings().prefect_api}.")
    moment = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
    first = datetime(2013, 2, 1, tzinfo=UTC)
    whats: dict[str, Callable[[Path, datetime], dict[str, Any]]] = {"plain script": plain_run, "flow, warm": flow_run}
    for run in whats.values():
        run(Path(home) / "first", first)
        shutil.rmtree(Path(home) / "first")
    os.environ["DRIFTLINE_CASES"] = cases  # the first turn had the case as it is, which is enough to import everything
    settings.cache_clear()
    found: dict[str, Any] = {what: {"seconds": [], "cpu": [], "peak": 0} for what in whats}
    for turn in range(runs):
        for what, run in whats.items():
            took = measured(partial(run, Path(home) / str(turn), moment))
            for name in ("seconds", "cpu"):
                found[what][name].append(took[name])
            found[what]["peak"] = max(found[what]["peak"], took["peak"])
            found[what] |= took["result"]
            shutil.rmtree(Path(home) / str(turn))
    found["flights"] = found["plain script"]["train_rows"] + found["plain script"]["holdout_rows"]
    return found


def plain_run(folder: Path, as_of: datetime) -> dict[str, Any]:
    from benchmarks.plain_flights import work
    from tasks.core.settings import settings

    return work(settings().cases / CASE, as_of, folder / "plain")


def flow_run(folder: Path, as_of: datetime) -> dict[str, Any]:
    """The flow from an empty state folder: told like the plain script's result, by its own steps."""
    from flows.run_context import Request
    from flows.train import train
    from tasks.core.progress import Step, progress_listener
    from tasks.core.settings import settings

    os.environ.update(DRIFTLINE_STATE=str(folder), DRIFTLINE_DATA=str(folder / "data"))
    settings.cache_clear()
    steps: list[Step] = []
    with progress_listener(steps.append):
        start = time.perf_counter()
        trained = train(Request(case=CASE, as_of=as_of))
        total = time.perf_counter() - start
    parts = {step.title: step.seconds for step in steps if step.seconds}
    parts["around them"] = total - sum(parts.values())
    overall = dict(trained.verdict.metrics["overall"])
    return {
        "train_rows": trained.candidate.train_rows,
        "holdout_rows": overall.pop("rows"),
        "quarantined": sum(trained.snapshot.quarantined.values()),
        "metrics": overall,
        "parts": parts,
    }


def check_equal(plain: dict[str, Any], flow: dict[str, Any]) -> float:
    """By how much the metrics differ at most: the last digits of averages can turn a tree's split.

    Raises: RuntimeError when the two did not work on the same rows, the plain script lacks a metric, or one differs by
    more than that explains.
    """
    if lacking := sorted(flow["metrics"].keys() - plain["metrics"].keys()):
        raise RuntimeError(f"benchmarks/plain_flights.py does not compute {', '.join(lacking)}: add it to measure().")
    differences = {name: abs(plain["metrics"][name] - value) for name, value in flow["metrics"].items()}
    rows = [name for name in ("train_rows", "holdout_rows", "quarantined") if plain[name] != flow[name]]
    if rows or max(differences.values()) > 0.005:
        raise RuntimeError(f"Plain script and flow differ: {rows} {differences}\n{plain}\n{flow}")
    return float(max(differences.values()))


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Wall and CPU seconds (of this process) and peak memory in MB of one piece of work, and its result."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    cpu = cpu_of(resource.getrusage(resource.RUSAGE_SELF), before)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "result": result}


def cpu_of(after: resource.struct_rusage, before: resource.struct_rusage) -> float:
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_tenfold(cases: Path, out: Path) -> Path:
    """A cases folder in which every flight departs ten times, under ten numbers; only what counts rows is changed."""
    import duckdb
    import yaml

    from tasks.data.origins.local import locate

    shutil.copytree(cases / CASE, out / CASE)
    path = out / CASE / "case.yaml"
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    flights = case["data"]["sources"]["flights"]
    packed, flights["uri"] = locate(flights["uri"], cases / CASE), "file://flights.csv"
    shutil.unpack_archive(packed, out / "once")
    duckdb.execute(
        f"COPY (SELECT * REPLACE (flight + 10000 * copy AS flight) FROM read_csv('{out}/once/*.csv', "
        f"nullstr='NA', sample_size=-1), range({TIMES}) AS copies(copy) ORDER BY year, month, day, copy) "
        f"TO '{out / CASE / 'flights.csv'}' (HEADER, NULLSTR 'NA', TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ')"
    )
    for expectation in [*flights["expectations"], *flights["batch_expectations"]]:
        if expectation.get("column") == "flight" and "max_value" in expectation:
            expectation["max_value"] = 10000 * TIMES
        if expectation.get("column") == "rows":
            expectation |= {bound: TIMES * value for bound, value in expectation.items() if bound.endswith("_value")}
    path.write_text(yaml.safe_dump(case), encoding="utf-8")
    return out


@contextmanager
def prefect_server(home: Path) -> Iterator[None]:
    """A Prefect server on a free port, with an empty database; this process and its children are pointed at it."""
    from services.runtime.prefect_database import seed
    from services.serving.process import free_port, wait_until_ready
    from tasks.core.settings import LOGIN_USER

    port, log = free_port(), home / "prefect.log"
    seed(home / "prefect")
    login = f"{LOGIN_USER}:{secrets.token_urlsafe(32)}"
    os.environ.update(DRIFTLINE_PREFECT_PORT=str(port), DRIFTLINE_PREFECT_URL="", PREFECT_SERVER_API_AUTH_STRING=login)
    own = {"PREFECT_HOME": str(home / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, env={**os.environ, **own}, stdout=out, stderr=out) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/api/health", "Prefect", log, 180, lambda: server.poll() is None)
            yield
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
