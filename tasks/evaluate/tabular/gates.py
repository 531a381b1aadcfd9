"""Judge a candidate on its hold-out against the case's gates and the champion. What can't be computed fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.mlflow import Tracking
from tasks.core.progress import mark_cached
from tasks.evaluate.config import Evaluate, LanguageEvaluation
from tasks.evaluate.criteria import (
    batch_invariance_criterion,
    bound_criterion,
    champion_criterion,
    slice_criterion,
    speed_criterion,
)
from tasks.evaluate.metrics import by_month, by_value
from tasks.evaluate.report import explain
from tasks.evaluate.results import Verdict
from tasks.evaluate.verdicts import find_verdict, require_run, store_verdict
from tasks.statistics.metric_catalog import LOSSES, TaskKind, metrics_of
from tasks.train.classes import Classes, align_classes, encode_target, prediction_columns, predictions_in
from tasks.train.config import Split, Target
from tasks.train.metrics import compute_metrics
from tasks.train.results import Candidate
from tasks.train.tabular.model_file import Model, load, predict
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["check_gates", "evaluate_gates", "explain"]

PHRASES = {"classification": "a classification", "regression": "a regression", "answers": "answers"}
ALONE = 50  # rows that are also scored one at a time


def check_gates(config: Evaluate | LanguageEvaluation, task: TaskKind, columns: Sequence[str] | None = None) -> None:
    """Check that metrics and losses fit the task, and, given the frame's columns, that slices are among them.

    `task` is classification, regression, or answers. Raises: CaseError.
    """
    fitting = metrics_of(task)
    otherwise = "" if task == "answers" else ", or correct target.task"
    named = [(f"evaluate.bounds[{i}].metric", bound.metric) for i, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate.metric", config.slice_gate.metric)] if config.slice_gate else []
    for where, metric in named:
        if metric not in fitting:
            raise CaseError(
                f"{metric} is no metric of {PHRASES[task]}.",
                where=where,
                found=metric,
                allowed=", ".join(fitting),
                todo=f"Name one of these{otherwise}.",
            )
    if config.champion_gate.loss not in LOSSES[task]:
        raise CaseError(
            f"{config.champion_gate.loss} is no loss of {PHRASES[task]}.",
            where="evaluate.champion_gate.loss",
            found=config.champion_gate.loss,
            allowed=", ".join(LOSSES[task]),
            todo=f"Name one of these{otherwise}.",
        )
    if config.slice_gate and not config.slices:
        raise CaseError(
            "A slice gate without slices would never be computed.",
            where="evaluate.slice_gate",
            found="evaluate.slices is empty",
            todo="Name columns under evaluate.slices, or remove the slice gate.",
        )
    for column in config.slices:
        if columns is not None and column not in columns:
            raise CaseError(
                f"There is no column {column} to slice by.",
                where="evaluate.slices",
                found=column,
                allowed=", ".join(columns),
                todo="Name one of these." if task == "answers" else "Name a column that features.examples gives.",
            )


def evaluate_gates(
    candidate: Candidate,
    target: Target,
    split: Split,
    config: Evaluate,
    state: Path,
    champion_model: Path | None = None,
    champion_digest: str | None = None,
    threads: int = 1,
    tracking: Tracking | None = None,
) -> Verdict:
    """Score the hold-out, hold it against every gate, log the verdict to the candidate's run, and give it.

    The same question asked again gives the stored verdict. `threads` speeds up scoring and changes no answer.

    Raises: DataError when the candidate's own model or hold-out can't be read; DriftlineError when its run is gone.
    """
    champion_weights = file_digest(champion_model) if champion_model and champion_model.is_file() else None
    key = cache_key(
        __name__,
        {
            "candidate": [candidate.run_id, candidate.weights_digest, candidate.data_digest],
            "definitions": candidate.definitions_digest,
            "rows": [candidate.train_rows, candidate.holdout_rows],
            "target": target.digest,
            "split": split.digest,
            "gates": config.digest,
            "champion": [champion_digest, champion_weights, champion_model is not None],
        },
    )
    folder = state / "verdicts" / candidate.case / key[:16]
    stored = find_verdict(folder)
    if stored is not None:
        mark_cached()
        return stored

    place = tracking or Tracking.in_folder(state)
    require_run(candidate, place)
    with _limited(threads):
        scored, alone, classes = score_holdout(candidate, target, split)
        compared, problem = _beside_champion(scored, target, classes, champion_model, champion_digest)
    metrics = tables_of(scored, target, classes, config.slices)
    criteria = [bound_criterion(bound, metrics["overall"]) for bound in config.bounds]
    if config.slice_gate:
        found = metrics["by_slice"]
        criteria += [slice_criterion(config.slice_gate, c, metrics["overall"], found.get(c)) for c in config.slices]
    criteria.append(champion_criterion(config.champion_gate, *compared, problem))
    criteria.append(batch_invariance_criterion(alone["difference"]))
    if config.ms_per_row is not None:
        criteria.append(speed_criterion(config.ms_per_row, alone["ms_per_row"]))
    figures = {**metrics["overall"], "ms_per_row": alone["ms_per_row"]}
    return store_verdict(candidate, criteria, metrics, figures, scored, champion_digest, folder, place, classes=classes)


def score_holdout(candidate: Candidate, target: Target, split: Split) -> tuple[pd.DataFrame, dict[str, float], Classes]:
    """Give the hold-out with its predictions; of a few rows scored alone, the milliseconds and the difference; classes.

    Raises: DataError.
    """
    import numpy as np
    import pyarrow.parquet as pq

    frame = pq.read_table(candidate.frame)
    # the split needs three columns; making Python text of all the rows that were trained on would take longest
    deciding = frame.select(["example_id", "event_timestamp", target.column]).to_pandas()
    _, held = split_frame(deciding[deciding[target.column].notna()], split)
    model = load(candidate.folder / "model.skops")
    scored = frame.take(held.index.to_numpy()).to_pandas()
    batch = predict(model, scored, candidate.columns)
    some = np.unique(np.linspace(0, len(scored) - 1, min(ALONE, len(scored))).astype(int))
    seconds, answers = _score_alone(model, scored, some)
    difference = float(np.max(np.abs(answers - batch[some])))
    scored = scored.assign(**prediction_columns(batch, model.classes))
    return scored, {"ms_per_row": 1000 * median(seconds), "difference": difference}, model.classes


def tables_of(scored: pd.DataFrame, target: Target, classes: Classes, slices: Sequence[str]) -> dict[str, Any]:
    """Metrics overall, by month and by slice; each with its number of rows."""
    y, p = encode_target(scored[target.column], classes), predictions_in(scored, classes)
    return {
        "overall": {"rows": len(scored), **compute_metrics(y, p, target.task)},
        "by_month": by_month(scored["event_timestamp"], y, p, target.task),
        "by_slice": {c: by_value(scored[c], y, p, target.task) for c in slices if c in scored},
    }


def _score_alone(model: Model, scored: pd.DataFrame, some: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Score rows one at a time, as a service does: seconds and answers."""
    import numpy as np

    values = {column.name: scored[column.name].to_numpy(object)[some].tolist() for column in model.columns}
    seconds, answers = [], []
    for i in range(len(some)):
        row = {name: column[i : i + 1] for name, column in values.items()}
        started = perf_counter()
        answers.append(predict(model, row))
        seconds.append(perf_counter() - started)
    return seconds, np.concatenate(answers)


def _beside_champion(
    scored: pd.DataFrame, target: Target, classes: Classes, model: Path | None, digest: str | None
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray | None], str]:
    """The target, the predictions and the champion's for the same rows; or, without those, why there are none.

    No champion at all is no problem.
    """
    values, ours = scored[target.column], predictions_in(scored, classes)
    alone = encode_target(values, classes), ours, None
    if model is None:
        return alone, f"champion {digest[:12]} has no model file here" if digest else ""
    try:
        champion = load(model)
        theirs = predict(champion, scored)
    except DataError as error:
        return alone, f"the champion can't score these rows: {error.what} {error.found}"
    if bool(champion.classes) != bool(classes):
        return alone, "the champion is of another task"
    return align_classes(values, ours, classes, theirs, champion.classes), ""


def _limited(threads: int) -> Any:
    import sklearn.ensemble  # noqa: F401  # a limit holds for libraries that are loaded already
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)
