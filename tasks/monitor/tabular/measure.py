"""Measure a release on a window: performance, calibration, drift and importance, each against its hold-out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.files import file_digest
from tasks.core.places import Places
from tasks.monitor.config import Monitor, TabularSpec
from tasks.monitor.data_quality import snapshot_quality
from tasks.monitor.drift import measure_drift
from tasks.monitor.predecessor import compare_predecessor
from tasks.monitor.results import Signal
from tasks.monitor.signal import SEED, Window, WindowData, find_signal, fingerprint, sample, store_signal
from tasks.monitor.tabular.groups import measure_groups
from tasks.monitor.tabular.importance import importance_p_value, importance_shares, permutation_importance
from tasks.monitor.tabular.labels_and_predictions import labels_and_predictions
from tasks.monitor.tabular.metric_permutation import performance_p_values
from tasks.monitor.tabular.outcomes import ScoredWithOutcomes, join_outcomes, without_outcomes
from tasks.monitor.tabular.performance import Performance
from tasks.monitor.tabular.performance_estimate import estimate, estimate_p_value
from tasks.predict.tabular import read_predictions
from tasks.release.results import Release
from tasks.train.classes import predictions_in
from tasks.train.tabular.categories import known_categories

if TYPE_CHECKING:
    import pandas as pd

    from tasks.train.tabular.scoring import Model

FILES = ("model.skops", "scores.parquet")


@dataclass(frozen=True)
class Measurement:
    """Fields of a signal, p-values that are not yet adjusted, and a sentence for each value that is missing."""

    fields: Mapping[str, Any]
    p_values: Mapping[str, float | None]
    missing: tuple[str, ...] = ()


NOTHING = Measurement({}, {})


def measure(
    release: Release,
    spec: TabularSpec,
    window: Window,
    data: WindowData,
    places: Places,
    predecessor: Release | None = None,
) -> Signal:
    """Measure the predictions of a window by the outcomes in its data, a Parquet file of examples.

    The release's folder holds model.skops and scores.parquet, the scored hold-out. `predecessor` is the previous
    champion. The report, its numbers and the signal lie in STATE/monitor/CASE/RELEASE12/AS_OF; equal inputs return the
    stored signal.

    Raises: NoDataYet when the window holds no predictions; DataError when the examples have no outcomes.
    """
    predictions = read_predictions(places.predictions, window.case, window.release, window.start, window.end)
    quality = snapshot_quality(data.snapshot) if data.snapshot else ()
    if spec.rows_are_numbered:
        joined = without_outcomes(predictions, quality)
    else:
        joined = join_outcomes(predictions, data.path, spec.target.column, quality)
    return measure_rows(release, spec, window, joined, places, predecessor)


def measure_rows(
    release: Release,
    spec: TabularSpec,
    window: Window,
    scored: ScoredWithOutcomes,
    places: Places,
    predecessor: Release | None = None,
) -> Signal:
    """Measure scored rows, as `measure` does."""
    import pandas as pd

    from tasks.train.tabular.model_file import load

    config, target, rows = spec.monitor, spec.target, scored.rows
    inputs = window.inputs(
        __name__,
        [
            [config.digest, target.digest, [(column.name, column.kind) for column in release.columns]],
            [fingerprint(rows), scored.notes, [batch.model_dump() for batch in scored.quality]],
            [file_digest(release.folder / name) for name in FILES if (release.folder / name).is_file()],
            [predecessor.digest, spec.gate.digest] if predecessor else [],
            *([spec.fairness.digest] if spec.fairness else []),
        ],
    )
    folder = window.folder(places.state)
    if (stored := find_signal(folder, inputs)) is not None:
        return stored

    model, reference = load(release.folder / "model.skops"), pd.read_parquet(release.folder / "scores.parquet")
    reference = reference[reference[target.column].notna()]
    known, unknown = rows[rows["outcome"].notna()], rows[rows["outcome"].isna()]
    performance = Performance(
        labels_and_predictions(known, "outcome", model.classes),
        labels_and_predictions(reference, target.column, model.classes),
        target,
        model.classes,
    )
    metric, enough = config.retrain.metric, len(known) >= config.min_rows
    p_values = performance_p_values(performance.window, performance.reference, model.classes, metric) if enough else {}
    better, not_compared = None, ""
    if predecessor and enough:
        better, not_compared = compare_predecessor(known, model.classes, predecessor, scored.examples, spec.gate)
    measurements = (
        Measurement(performance.measure(), p_values, tuple(performance.missing())),
        Measurement({"predecessor": better}, {}, (not_compared,) if not_compared else ()),
        _drift(rows, reference, release, model, config, folder),
        _importance(known, reference, performance, model, config),
        _estimated(unknown, performance, config),
        _groups(spec, known, scored, model),
    )
    fields: dict[str, Any] = {
        "task": target.task,
        "rows": len(rows),
        "rows_with_outcome": len(known),
        "reference_rows": len(reference),
        "inputs": inputs,
        "parts": performance.parts(known["event_timestamp"], metric, window.parts(config.retrain.of)),
        "origins": scored.origins,
        "quality": scored.quality,
        "not_computed": (*scored.notes, *(sentence for each in measurements for sentence in each.missing)),
    }
    for each in measurements:
        fields |= each.fields
        p_values |= each.p_values
    return store_signal(window, folder, fields, known, p_values, config)


def _groups(spec: TabularSpec, known: pd.DataFrame, scored: ScoredWithOutcomes, model: Model) -> Measurement:
    if spec.fairness is None:
        return NOTHING
    if len(known) < spec.monitor.min_rows:
        few = f"{len(known):,} rows with an outcome, {spec.monitor.min_rows:,} are needed"
        return Measurement({}, {}, (f"Groups were not compared: {few}.",))
    fields, notes = measure_groups(spec.fairness, known, scored, model.classes)
    return Measurement(fields, {}, tuple(notes))


def _drift(
    rows: pd.DataFrame, reference: pd.DataFrame, release: Release, model: Model, config: Monitor, folder: Path
) -> Measurement:
    kind: Literal["number", "text"] = "text" if len(model.classes) > 2 else "number"
    samples = sample(reference, config.sample), sample(rows, config.sample)
    drift = measure_drift(*samples, release.columns, folder, kind, known_categories(model))
    missing = f"Drift of the predictions was not computed: {len(rows):,} rows now, {len(reference):,} then."
    compared = drift.prediction is not None
    return Measurement(
        {"columns": drift.columns, "prediction_drift": drift.prediction, "prediction_note": drift.prediction_note},
        {"prediction": drift.prediction_p_value if compared else None},
        () if compared else (missing,),
    )


def _importance(
    known: pd.DataFrame, reference: pd.DataFrame, performance: Performance, model: Model, config: Monitor
) -> Measurement:
    if len(known) < config.min_rows:
        missing = f"Importance was not computed: {len(known):,} rows with an outcome, {config.min_rows:,} are needed."
        return Measurement({}, {}, (missing,))
    now = permutation_importance(model, known, performance.window[0], SEED)
    then = permutation_importance(model, reference, performance.reference[0], SEED)
    names = [column.name for column in model.columns]
    shares, shares_then = (
        dict(zip(names, map(float, importance_shares(side.sum(axis=0))), strict=True)) for side in (now, then)
    )
    shift = sum(abs(shares[name] - shares_then[name]) for name in names)
    return Measurement(
        {"importance": shares, "importance_then": shares_then, "importance_shift": shift},
        {"importance": importance_p_value(then, now, SEED)},
    )


def _estimated(unknown: pd.DataFrame, performance: Performance, config: Monitor) -> Measurement:
    """The expected performance on rows without an outcome, if there are enough."""
    rows = len(unknown)
    if not rows:
        return NOTHING
    if performance.target.task != "classification":
        missing = f"Performance was not estimated for {rows:,} rows without an outcome: only for classes."
        return Measurement({}, {}, (missing,))
    if rows < config.min_rows:
        missing = f"Performance was not estimated: {rows:,} rows without an outcome, {config.min_rows:,} are needed."
        return Measurement({}, {}, (missing,))
    predictions, metric = predictions_in(unknown, performance.classes), config.retrain.metric
    estimated = estimate(predictions, performance.reference)
    p_values = {}
    if metric in estimated:
        p_values["estimated"] = estimate_p_value(predictions, performance.reference, metric)
    return Measurement({"estimated": estimated, "estimated_rows": rows}, p_values)
