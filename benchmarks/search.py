"""Searches against hand-made configurations, AutoGluon and FLAML; and whether they keep their budgets.

    python -m benchmarks.search [--quick] [--json FILE] [--only PARTS] [--keep FOLDER]
                                [--autogluon VENV] [--flaml VENV]

PARTS, with commas between: flights, language, budget, shuffled, tables, or the name of one table. With --only, figures
of FILE that other parts measured stay. Answers on flights and tables stay in FOLDER of --keep, so that a later call
goes on with them. VENV is a virtual environment that has the peer; without one it is left out:

    python -m venv VENV && VENV/bin/pip install "autogluon.tabular[lightgbm,catboost,xgboost]==1.6.3"
    python -m venv VENV && VENV/bin/pip install "flaml[automl]==2.8.0" pyarrow

All get the same rows, seconds and two threads. Flights are trained on January to March and judged on April to December;
AutoGluon tunes on the week that the case holds out, FLAML by its defaults. `driftline search` searches, its choice is
adopted by `driftline search adopt`, and trained as the case's candidate, in a state folder of its own.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from pathlib import Path

from benchmarks.search_flights import measure_flights
from benchmarks.search_limits import measure_budget, measure_language, measure_shuffled
from benchmarks.search_peers import Peer, Systems
from benchmarks.search_tables import TABLES, measure_tables
from benchmarks.table import Report, arguments

COLUMNS = ["part", "what", "metric", "driftline", "AutoGluon", "FLAML", "by hand", "seconds", "note"]
REQUIRED = {
    "flights_auto_minus_hand_auc": ">= .003, or the interval includes it",
    "flights_auto_minus_autogluon_auc": ">= -.001",
    "flights_seconds_over_autogluon": "<= .5",
    "flights_ms_per_row": "<= 5",
    "tables_mean_difference": ">= -.005",
    "budget_overrun_worst": "<= 5",
    "shuffled_promoted": "<= 16 of 200",
}
PARTS = ("flights", "tables", "language", "budget", "shuffled")


def main() -> None:
    options = arguments(
        "Searches against hand-made configurations, AutoGluon and FLAML.",
        only="parts, with commas between; figures of the others stay in FILE",
        autogluon="virtual environment with AutoGluon",
        flaml="virtual environment with FLAML",
        keep="folder for the answers on flights and tables, which a later call goes on with",
    )
    parts = options.only.split(",") if options.only else PARTS
    if unknown := [part for part in parts if part not in (*PARTS, *TABLES)]:
        raise SystemExit(f"There is no part {', '.join(unknown)}; there are: {', '.join((*PARTS, *TABLES))}")
    report = Report("Searches", COLUMNS, REQUIRED)
    if options.only and options.json and options.json.is_file():
        report.figures = json.loads(options.json.read_text(encoding="utf-8"))["figures"]
    systems = systems_of(options)
    with tempfile.TemporaryDirectory(prefix="driftline-search-") as name:
        for part in parts:
            folder = Path(options.keep or name) / ("tables" if part in TABLES else part)
            if part == "flights":
                measure_flights(report, systems, folder)
            elif part == "language":
                measure_language(report, folder, options.quick)
            elif part == "budget":
                measure_budget(report, folder, options.quick)
            elif part == "shuffled":
                measure_shuffled(report, folder, 10 if options.quick else 200)
            else:
                names = [part] if part in TABLES else [*TABLES][: 2 if options.quick else None]
                measure_tables(report, systems, names, folder)
    report.finish(["scikit-learn", "optuna"], options.json)


def systems_of(options: Namespace) -> Systems:
    """Who searches, and for how many seconds."""
    peers = {name: Path(path) for name in ("autogluon", "flaml") if (path := getattr(options, name))}
    return Systems(
        tuple(Peer(name, path) for name, path in peers.items()),
        table_seconds=25.0 if options.quick else 45.0,
        flights_seconds=60.0 if options.quick else 300.0,
    )


if __name__ == "__main__":
    main()
