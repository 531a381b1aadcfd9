"""Measure a release on a window: performance, calibration, drift and importance, each against its hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.files import file_digest
from tasks.evaluate.config import ChampionGate
from tasks.features.results import Column
from tasks.monitor.config import Monitor
from tasks.monitor.drift import measure_drift
from tasks.monitor.predecessor import compare_predecessor
from tasks.monitor.results import Signal
from tasks.monitor.signal import SEED, Window, find_signal, fingerprint, sample, store_signal
from tasks.monitor.tabular.importance import importance_p_value, importance_shares, permutation_importance
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions, labels_and_predictions
from tasks.monitor.tabular.metric_permutation import performance_p_values
from tasks.monitor.tabular.outcomes import join_outcomes
from tasks.monitor.tabular.performance import measure_parts, measure_performance
from tasks.monitor.tabular.performance_estimate import estimate, estimate_p_value
from tasks.predict.tabular import read_predictions
from tasks.release.results import Release
from tasks.train.classes import predictions_in
from tasks.train.config import Target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tasks.train.tabular.scoring import Model

FILES = ("model.skops", "scores.parquet")


def measure(
    window: Window,
    release: Path,
    columns: Sequence[Column],
    target: Target,
    config: Monitor,
    examples: Path,
    predictions: Path,
    state: Path,
    before: tuple[Release, ChampionGate] | None = None,
) -> Signal:
    """Judge what a release predicted by the outcomes known in `examples`.

    `release` holds model.skops and scores.parquet, the scored hold-out; `predictions` is the folder that the predict
    room writes to; `before` is the champion before, and when it counts as better. The report, its
    numbers and the signal lie in STATE/monitor/CASE/RELEASE12/AS_OF; the same inputs find the signal there instead of
    measuring again.
    Raises: DataError when the window holds no predictions, or the examples tell no outcomes.
    """
    import pandas as pd

    from tasks.train.tabular.model_file import load

    said = read_predictions(predictions, window.case, window.release, window.start, window.end)
    now = join_outcomes(said, examples, target.column)
    inputs = window.inputs(
        __name__,
        [
            [config.digest, target.digest, [(column.name, column.kind) for column in columns]],
            fingerprint(now),
            [file_digest(release / name) for name in FILES if (release / name).is_file()],
            [before[0].digest, before[1].digest] if before else [],
        ],
    )
    folder = window.folder(state)
    if (found := find_signal(folder, inputs)) is not None:
        return found

    model, reference = load(release / "model.skops"), pd.read_parquet(release / "scores.parquet")
    reference = reference[reference[target.column].notna()]
    known, unknown = now[now["outcome"].notna()], now[now["outcome"].isna()]
    sides = (
        labels_and_predictions(known, "outcome", model.classes),
        labels_and_predictions(reference, target.column, model.classes),
    )
    missing: list[str] = []
    metric, enough = config.retrain.metric, len(known) >= config.min_rows
    measured = {
        "task": target.task,
        "rows": len(now),
        "rows_with_outcome": len(known),
        "reference_rows": len(reference),
        "inputs": inputs,
        **measure_performance(*sides, target, model.classes, missing),
        "parts": measure_parts(
            *sides, known["event_timestamp"], target, model.classes, metric, window.parts(config.retrain.of)
        ),
        "predecessor": compare_predecessor(known, model.classes, before[0], examples, before[1], missing)
        if before and enough
        else None,
        **_drift(now, reference, columns, model, config, folder, missing),
    }
    chances = performance_p_values(*sides, model.classes, metric) if enough else {}
    chances["prediction"] = measured.pop("prediction_chance")
    measured |= _importance(known, reference, sides, model, config, chances, missing)
    measured |= _estimated(predictions_in(unknown, model.classes), sides[1], target, config, chances, missing)
    measured["not_computed"] = tuple(missing)
    return store_signal(window, folder, measured, known, chances, config)


def _drift(
    now: pd.DataFrame,
    reference: pd.DataFrame,
    columns: Sequence[Column],
    model: Model,
    config: Monitor,
    folder: Path,
    missing: list[str],
) -> dict[str, Any]:
    kind: Literal["number", "text"] = "text" if len(model.classes) > 2 else "number"
    drift = measure_drift(sample(reference, config.sample), sample(now, config.sample), columns, folder, kind)
    if drift.prediction is None:
        missing.append(f"Drift of the predictions was not computed: {len(now):,} rows now, {len(reference):,} then.")
    return {
        "columns": drift.columns,
        "prediction_drift": drift.prediction,
        "prediction_chance": drift.prediction_chance if drift.prediction is not None else None,
    }


def _estimated(
    unknown: np.ndarray,
    then: LabelsAndPredictions,
    target: Target,
    config: Monitor,
    chances: dict[str, float | None],
    missing: list[str],
) -> dict[str, Any]:
    """What is to be expected of rows without an outcome, if they are enough to say so."""
    if not len(unknown):
        return {}
    if target.task != "classification":
        missing.append(f"Performance was not estimated for {len(unknown):,} rows without an outcome: only for classes.")
        return {}
    if len(unknown) < config.min_rows:
        missing.append(
            f"Performance was not estimated: {len(unknown):,} rows without an outcome, {config.min_rows:,} are needed."
        )
        return {}
    estimated = estimate(unknown, then)
    if config.retrain.metric in estimated:
        chances["estimated"] = estimate_p_value(unknown, then, config.retrain.metric)
    return {"estimated": estimated, "estimated_rows": len(unknown)}


def _importance(
    known: pd.DataFrame,
    reference: pd.DataFrame,
    sides: tuple[LabelsAndPredictions, LabelsAndPredictions],
    model: Model,
    config: Monitor,
    chances: dict[str, float | None],
    missing: list[str],
) -> dict[str, Any]:
    if len(known) < config.min_rows:
        missing.append(
            f"Importance was not computed: {len(known):,} rows with an outcome, {config.min_rows:,} are needed."
        )
        return {}
    now, then = (
        permutation_importance(model, rows, y, SEED) for rows, (y, _) in zip((known, reference), sides, strict=True)
    )
    chances["importance"] = importance_p_value(then, now, SEED)
    names = [column.name for column in model.columns]
    shares = [dict(zip(names, map(float, importance_shares(side.sum(axis=0))), strict=True)) for side in (now, then)]
    shift = sum(abs(shares[0][name] - shares[1][name]) for name in names)
    return {"importance": shares[0], "importance_then": shares[1], "importance_shift": shift}
