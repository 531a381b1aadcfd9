"""Evaluate a candidate on its hold-out against the case's gates and the champion. What can't be computed fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.progress import mark_cached
from tasks.evaluate.config import DAY, OF_REGRESSIONS, Evaluate, LanguageEvaluation
from tasks.evaluate.criteria import (
    batch_invariance_criterion,
    class_rows_criterion,
    speed_criterion,
    thresholds_criterion,
)
from tasks.evaluate.mitigation import mitigation_table
from tasks.evaluate.report import explain
from tasks.evaluate.results import Champion, Criterion, EvaluationContext, Verdict
from tasks.evaluate.tabular.baselines import predict_baselines
from tasks.evaluate.tabular.leaks import leak_criteria
from tasks.evaluate.tabular.rows import RARE, EvaluationRows, read_rows
from tasks.evaluate.tabular.scores import Scores, StoredScores, paired_table, score_criteria
from tasks.evaluate.verdicts import Evaluation, find_verdict, require_run, store_verdict, without_timing
from tasks.evaluate.waivers import check_waivers, split_waivers, waive_gates
from tasks.statistics.metric_catalog import LOSSES, TaskKind, metrics_of
from tasks.train.classes import Classes, align_classes, encode_target, prediction_columns, predictions_in
from tasks.train.config import Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.fit import UNMITIGATED
from tasks.train.tabular.model_file import load, predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["check_gates", "evaluate_gates", "explain"]

SINGLE_ROWS = 50  # rows that are also scored one at a time


def check_gates(config: Evaluate, task: TaskKind, columns: Sequence[str] | None = None) -> None:
    """Check that metrics and losses fit the task, and that slices are columns of the frame, where these are known.

    Raises: CaseError.
    """
    allowed = metrics_of(task)
    named = [(f"evaluate.bounds[{i}].metric", bound.metric) for i, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate.metric", config.slice_gate.metric)] if config.slice_gate else []
    for where, metric in named:
        if metric not in allowed:
            raise CaseError(
                f"{metric} is no metric of a {task}.",
                where=where,
                found=metric,
                allowed=", ".join(allowed),
                todo="Name one of these, or correct target.task.",
            )
    _check_fairness(config, task)
    if config.champion_gate.loss not in LOSSES[task]:
        raise CaseError(
            f"{config.champion_gate.loss} is no loss of a {task}.",
            where="evaluate.champion_gate.loss",
            found=config.champion_gate.loss,
            allowed=", ".join(LOSSES[task]),
            todo="Name one of these, or correct target.task.",
        )
    if config.champion_gate.clusters not in ("", DAY, *(columns or (config.champion_gate.clusters,))):
        raise CaseError(
            f"There is no column {config.champion_gate.clusters} to cluster by.",
            where="evaluate.champion_gate.clusters",
            found=config.champion_gate.clusters,
            allowed=", ".join((DAY, *(columns or ()))),
            todo="Name one of these; in a table, features.examples decides on them.",
        )
    check_slices(config, columns)
    if config.champion_gate.slices and not config.slices:
        raise CaseError(
            "A comparison on slices without slices would never be computed.",
            where="evaluate.champion_gate.slices",
            found="evaluate.slices is empty",
            todo="Name columns under evaluate.slices, or remove the comparison.",
        )


def _check_fairness(config: Evaluate, task: TaskKind) -> None:
    """Check that fairness compares columns that the examples carry, by metrics of the task. Raises: CaseError."""
    if config.fairness is None:
        return
    if unknown := [column for column in config.fairness.columns if column not in config.slices]:
        raise CaseError(
            "A sensitive column is no slice.",
            where="evaluate.fairness.columns",
            found=", ".join(unknown),
            allowed=", ".join(config.slices) or "no slice at all",
            todo="Name it under evaluate.slices, too.",
        )
    metrics = [gate.metric for gate in config.fairness.gates]
    if task == "regression" and (wrong := [metric for metric in metrics if metric not in OF_REGRESSIONS]):
        raise CaseError(
            "A regression makes no decisions to compare.",
            where="evaluate.fairness.gates",
            found=", ".join(wrong),
            allowed=", ".join(OF_REGRESSIONS),
            todo="Name one of these.",
        )


def check_slices(config: Evaluate | LanguageEvaluation, columns: Sequence[str] | None) -> None:
    """Check that slices are columns of the examples, where these are known, and that a slice gate has some.

    Raises: CaseError.
    """
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
                todo="Name one of these; in a table, features.examples decides on them.",
            )


def evaluate_gates(
    candidate: Candidate,
    target: Target,
    train: Train,
    *,
    config: Evaluate,
    context: EvaluationContext,
) -> Verdict:
    """Score the hold-out, check every gate, and log the verdict to the candidate's run.

    Equal inputs return the stored verdict. `train` gives the split, and the threads, which change no score.

    Raises: DataError when the candidate's own model or hold-out can't be read; DriftlineError when its run is gone.
    """
    champion, places = context.champion, context.places
    valid, expired = split_waivers(config.waive)
    config = config.model_copy(update={"waive": valid})
    weights = file_digest(champion.model) if champion.model and champion.model.is_file() else None
    inputs = {
        "data": [candidate.data_digest, candidate.definitions_digest],
        "rows": [candidate.train_rows, candidate.holdout_rows, train.rows, train.seed],
        "target": target.digest,
        "split": train.split.digest,
    }
    key = cache_key(
        __name__,
        {
            **inputs,
            "candidate": [candidate.run_id, candidate.weights_digest],
            "gates": [config.digest, *(each.name for each in expired)],
            "champion": [champion.digest, weights, champion.model is not None],
            "measured": [each.model_dump(mode="json") for each in context.measured],
        },
    )
    folder = places.state / "verdicts" / candidate.case / key[:16]
    stored = find_verdict(folder)
    if stored is not None:
        mark_cached()
        return stored

    check_waivers(config, [column.name for column in candidate.columns])
    require_run(candidate, places.tracking)
    with _thread_limit(train.threads):
        model = load(candidate.folder / "model.skops")
        rows = read_rows(candidate, target, train, model)
        classes = rows.classes
        batch = predict(model, rows.holdout, candidate.columns)
        scored, single = score_holdout(partial(predict, model), batch, rows)
        compared, problem = _with_champion_predictions(scored, target, classes, champion)
        baselines = predict_baselines(rows, places.state / "baselines" / candidate.case, inputs)
    scores = Scores(scored, compared, problem, baselines)
    criteria, metrics, computed = gate_criteria(config, rows, scores, single, _importance(candidate))
    if (other := candidate.folder / UNMITIGATED).is_file():
        unmitigated = predict(load(other), rows.holdout, candidate.columns)
        metrics["mitigation"] = mitigation_table(config.fairness, scored, target, classes, unmitigated)
    criteria += [*waive_gates(context.measured, config.waive), *expired]
    if train.thresholds:
        criteria.append(thresholds_criterion(train.thresholds.columns, train.thresholds.basis))
    evaluation = Evaluation(
        criteria=criteria,
        metrics=metrics,
        logged={**metrics["overall"], "ms_per_row": single["ms_per_row"]},
        scores=scored,
        champion=champion.digest,
        classes=classes,
        data=rows.summary,
        evidence=StoredScores(
            evaluate=config,
            target=target,
            classes=classes,
            problem=problem,
            criteria=tuple(without_timing(each) for each in criteria),
            computed=computed,
        ).model_dump_json(indent=1),
        paired=paired_table(scores),
    )
    return store_verdict(candidate, evaluation, folder, places.tracking)


def gate_criteria(
    config: Evaluate,
    rows: EvaluationRows,
    scores: Scores,
    single: Mapping[str, float],
    importance: Mapping[str, float],
) -> tuple[list[Criterion], dict[str, Any], int]:
    """The criteria of all gates, the metrics, and how many of the criteria, the first ones, follow from scores alone.

    `single` holds time and difference of rows scored one at a time, `importance` each column's share.
    """
    criteria, metrics = score_criteria(config, rows.target, rows.classes, scores)
    computed = len(criteria)
    criteria += leak_criteria(rows, metrics["overall"], importance, config.waive)
    if rows.classes:
        criteria.append(class_rows_criterion(rows.class_rows(), RARE))
    criteria.append(batch_invariance_criterion(single["difference"]))
    if config.ms_per_row is not None:
        criteria.append(speed_criterion(config.ms_per_row, single["ms_per_row"]))
    return waive_gates(criteria, config.waive), metrics, computed


def score_holdout(
    score: Callable[[Any], np.ndarray], batch: np.ndarray, rows: EvaluationRows, count: int = SINGLE_ROWS
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The hold-out with its predictions `batch`; time and difference of `count` rows that are scored one at a time.

    Raises: DataError.
    """
    import numpy as np

    held = rows.holdout
    chosen = np.unique(np.linspace(0, len(held) - 1, min(count, len(held))).astype(int))
    seconds, answers = _score_single_rows(score, rows, chosen)
    difference = float(np.max(np.abs(answers - batch[chosen])))
    scored = held.assign(**prediction_columns(batch, rows.classes))
    return scored, {"ms_per_row": 1000 * median(seconds), "difference": difference}


def _importance(candidate: Candidate) -> dict[str, float]:
    path = candidate.folder / "importance.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _score_single_rows(
    score: Callable[[Any], np.ndarray], rows: EvaluationRows, chosen: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """Score rows one at a time, as a service does; returns seconds and predictions."""
    import numpy as np

    values = {column.name: rows.holdout[column.name].to_numpy(object)[chosen].tolist() for column in rows.columns}
    seconds, answers = [], []
    for i in range(len(chosen)):
        row = {name: column[i : i + 1] for name, column in values.items()}
        started = perf_counter()
        answers.append(score(row))
        seconds.append(perf_counter() - started)
    return seconds, np.concatenate(answers)


def _with_champion_predictions(
    scored: pd.DataFrame, target: Target, classes: Classes, champion: Champion
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray | None], str]:
    """Target, predictions and the champion's predictions of the same rows; or the reason why these are missing.

    A first candidate, without a champion, is no problem.
    """
    values, predictions = scored[target.column], predictions_in(scored, classes)
    without = encode_target(values, classes), predictions, None
    if champion.model is None:
        return without, f"champion {champion.digest[:12]} has no model file here" if champion.digest else ""
    try:
        model = load(champion.model)
        champion_predictions = predict(model, scored)
    except DataError as error:
        return without, f"the champion can't score these rows: {error.what} {error.found}"
    if bool(model.classes) != bool(classes):
        return without, "the champion is of another task"
    return align_classes(values, predictions, classes, champion_predictions, model.classes), ""


def _thread_limit(threads: int) -> Any:
    import sklearn.ensemble  # noqa: F401  # a limit holds for libraries that are loaded already
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)
