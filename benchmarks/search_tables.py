"""Searches on seven tables against AutoGluon's medium preset and FLAML, at equal seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.search_case import Workplace, trained
from benchmarks.search_peers import Fitted, Peer, Rows, Systems, fit_peer, once
from benchmarks.table import Report
from benchmarks.tables import TABLES as PLAIN
from tasks.train.classes import encode_target
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TEST = 0.25  # of the rows
CASE = """
kind: tabular
description: A table of the benchmark.
target: {{column: target, task: {task}}}
data: {{sources: {{rows: {{uri: "file://rows.parquet", key: [row_id]}}}}}}
features:
  examples: >-
    SELECT row_id::VARCHAR AS example_id, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS event_timestamp, * EXCLUDE (row_id)
    FROM rows
  request: {columns}
train:
  family: sklearn.ensemble.{family}
  encoders: {encoders}
  split: {{by: hash, share: 0.1}}
evaluate:
  bounds: [{{metric: {metric}, at_least: 0}}]
  champion_gate: {{loss: {loss}, margin: 0.01}}
monitor: {{retrain: {{metric: {metric}, worse_by: 0.05}}}}
"""
CODES = {"handle_unknown": "use_encoded_value", "unknown_value": "nan", "encoded_missing_value": "nan"}


def measure_tables(report: Report, systems: Systems, names: Sequence[str], folder: Path) -> None:
    """A row a table; the differences from AutoGluon with their interval, and ranks, over the tables of all runs."""
    for name in names:
        for system, metric in measure_table(report, systems, name, folder / name.replace(" ", "-")).items():
            report.figure(f"table_{name.replace(' ', '_')}_{system}", metric)
    summarise(report)


def measure_table(report: Report, systems: Systems, name: str, folder: Path) -> dict[str, float]:
    """The metric of each system on the test rows."""
    import numpy as np

    table, task = TABLES[name]()
    table = table.rename(columns={column: str(column).replace(" ", "_") for column in table}).reset_index(drop=True)
    order = np.random.default_rng(0).permutation(len(table))
    count = round(TEST * len(table))
    train, test = table.iloc[np.sort(order[count:])], table.iloc[np.sort(order[:count])]
    found = {"driftline": once(folder, "driftline", lambda: searched(folder, (train, test), task, systems))}
    for peer in systems.peers:
        found[peer.name] = once(folder, peer.name, partial(fit_table, peer, Rows(task, train, test), systems))
    metrics = {
        each: metric_of(test["target"], found[each].predictions, task, sorted(set(train["target"]))) for each in found
    }
    notes = [f"{each} {of.version}".strip() + f": {of.chosen}, {of.seconds:.0f} s" for each, of in found.items()]
    cells = [f"{metrics[each]:.4f}" if each in metrics else "" for each in ("driftline", "autogluon", "flaml")]
    metric = "auc" if task == "classification" else "r2"
    report.row("tables", name, metric, *cells, "", systems.table_seconds, "; ".join(notes))
    return metrics


def fit_table(peer: Peer, rows: Rows, systems: Systems) -> Fitted:
    return fit_peer(peer, rows, systems.table_seconds, systems.threads)


def searched(folder: Path, sides: tuple[pd.DataFrame, pd.DataFrame], task: str, systems: Systems) -> Fitted:
    """The answers to the test rows, the second side, of what a search of the first adopts."""
    from tasks.train.tabular.model_file import load, predict

    train, test = sides
    with Workplace(folder) as place:
        write_case(place, train, task)
        trained("table")  # the peers' seconds begin with a frame, too
        result = place.search("table", f"{systems.table_seconds:.0f}s")
        place.run("search", "adopt", "table", str(result["chosen"]))
        candidate = trained("table")
        model = load(candidate.folder / "model.skops")
    label = next(trial["label"] for trial in result["trials"] if trial["number"] == result["chosen"])
    chosen = f"{label}, {len(result['trials'])} trials"
    return Fitted(predict(model, test, candidate.columns), result["seconds"], 0.0, "", chosen)


def write_case(place: Workplace, train: pd.DataFrame, task: str) -> None:
    """The case `table` of these rows, by a default model."""
    case = place.cases / "table"
    case.mkdir(exist_ok=True)
    train.assign(row_id=range(len(train))).to_parquet(case / "rows.parquet", index=False)
    columns = [name for name in train if name != "target"]
    words = [name for name in columns if train[name].dtype == object]
    encoder = {"columns": words, "family": "sklearn.preprocessing.OrdinalEncoder", "parameters": CODES}
    kind = "Classifier" if task == "classification" else "Regressor"
    loss = "squared_error" if task == "regression" else "brier" if train["target"].nunique() == 2 else "log_loss"
    (case / "case.yaml").write_text(
        CASE.format(
            task=task,
            columns=json.dumps(columns),
            encoders=json.dumps([encoder] if words else []),
            family=f"HistGradientBoosting{kind}",
            loss=loss,
            metric="auc" if task == "classification" else "r2",
        ),
        encoding="utf-8",
    )


def metric_of(target: pd.Series, answers: np.ndarray, task: str, classes: Sequence[Any]) -> float:
    if task == "regression":
        return compute_metrics(target.to_numpy("float64"), answers, "regression")["r2"]
    return compute_metrics(encode_target(target, tuple(classes)), answers, "classification")["auc"]


def summarise(report: Report) -> None:
    """Figures over all tables that were measured, in this run or by earlier parts."""
    import numpy as np
    from scipy import stats

    found = {
        name: {
            system: report.figures[figure]
            for system in ("driftline", "autogluon", "flaml")
            if (figure := f"table_{name.replace(' ', '_')}_{system}") in report.figures
        }
        for name in TABLES
    }
    whole = [metrics for metrics in found.values() if {"driftline", "autogluon"} <= set(metrics)]
    if whole:
        differences = np.array([metrics["driftline"] - metrics["autogluon"] for metrics in whole])
        report.figure("tables_compared", len(whole))
        report.figure("tables_mean_difference", float(differences.mean()))
        if len(whole) > 1:
            low, high = stats.t.interval(0.95, len(whole) - 1, differences.mean(), stats.sem(differences))
            report.figure("tables_mean_difference_low", float(low))
            report.figure("tables_mean_difference_high", float(high))
    ranked = [metrics for metrics in found.values() if len(metrics) == 3]
    for system in ("driftline", "autogluon", "flaml") if ranked else ():
        ranks = [stats.rankdata([-value for value in metrics.values()])[[*metrics].index(system)] for metrics in ranked]
        name = "ours" if system == "driftline" else system
        report.figure(f"tables_mean_rank_{name}", fmean(float(rank) for rank in ranks))


def _statsmodels(name: str, task: str, target: str) -> Callable[[], tuple[pd.DataFrame, str]]:
    def load() -> tuple[pd.DataFrame, str]:
        import statsmodels.datasets

        table = getattr(statsmodels.datasets, name).load_pandas().data.rename(columns={target: "target"})
        if task == "classification":
            table["target"] = (table["target"] > 0).astype(int)
        return table, task

    return load


TABLES: dict[str, Callable[[], tuple[pd.DataFrame, str]]] = {
    "credit": PLAIN["credit"],
    "breast cancer": PLAIN["breast cancer"],
    "diabetes": PLAIN["diabetes"],  # of scikit-learn
    "digits": PLAIN["digits"],
    "fair": _statsmodels("fair", "classification", "affairs"),  # whether there were any
    "anes96": _statsmodels("anes96", "classification", "vote"),
    "randhie": _statsmodels("randhie", "regression", "mdvis"),
}
