"""Measure a release on a window: performance, calibration, drift and importance, each against its hold-out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.features.results import Column
from tasks.foundation.config import digest_of
from tasks.foundation.files import file_digest, write_text
from tasks.monitor.config import Monitor
from tasks.monitor.drift import measure_drift
from tasks.monitor.outcomes import join_outcomes
from tasks.monitor.results import Signal
from tasks.predict.batch import read_predictions
from tasks.train.config import Target
from tasks.train.metrics import measure as metrics_over
from tasks.train.metrics import metrics_of

if TYPE_CHECKING:
    import pandas as pd

FILES = ("model.skops", "scores.parquet", "importance.json")
SEED = 0
VERSION = 1  # of what is measured here: raise it when the same inputs give another signal


@dataclass(frozen=True)
class Window:
    """What is judged: what a release predicted for start <= event_timestamp < end, as known as of a moment."""

    case: str
    release: str  # digest, in full
    as_of: datetime
    start: datetime
    end: datetime

    def folder(self, state: Path) -> Path:
        return signal_folder(state, self.case, self.release, self.as_of)

    def inputs(self, of: Sequence[Any]) -> str:
        """Digest over the window and all else that a signal is measured from."""
        moments = [moment.astimezone(UTC).isoformat() for moment in (self.as_of, self.start, self.end)]
        return digest_of([self.release, moments, list(of)])


def measure(
    window: Window,
    release: Path,
    columns: Sequence[Column],
    target: Target,
    config: Monitor,
    examples: Path,
    predictions: Path,
    state: Path,
) -> Signal:
    """Judge what a release predicted by the outcomes known in `examples`.

    `release` holds model.skops, scores.parquet (the scored hold-out) and importance.json; `predictions` is the folder
    that the predict room writes to. The report, its numbers and the signal lie in
    STATE/monitor/CASE/RELEASE12/AS_OF; the same inputs find the signal there instead of measuring again.
    Raises: DataError when the window holds no predictions, or the examples tell no outcomes.
    """
    import pandas as pd

    said = read_predictions(predictions, window.case, window.release, window.start, window.end)
    now = join_outcomes(said, examples, target.column)
    inputs = window.inputs(
        [
            [config.digest, target.digest, [(column.name, column.kind) for column in columns]],
            fingerprint(now),
            [file_digest(release / name) for name in FILES if (release / name).is_file()],
            [VERSION, version("evidently")],
        ]
    )
    folder = window.folder(state)
    if (before := measured_before(folder, inputs)) is not None:
        return before

    reference = pd.read_parquet(release / "scores.parquet")
    known = now[now["outcome"].notna()]
    missing: list[str] = []
    measured = {
        "task": target.task,
        "rows": len(now),
        "rows_with_outcome": len(known),
        "reference_rows": len(reference),
        "inputs": inputs,
        **_performance(known, reference, target, missing),
        **_drift(now, reference, columns, config, folder, missing),
        **_importance(known, release, target, config, missing),
        "not_computed": tuple(missing),
    }
    return keep(window, folder, measured)


def keep(window: Window, folder: Path, measured: Mapping[str, Any]) -> Signal:
    """Write what was measured of a window beside its report, as a signal."""
    about = {name: getattr(window, name) for name in ("case", "release", "as_of", "start", "end")}
    signal = Signal(**about, **measured, digest="", folder=folder)
    digest = digest_of(signal.model_dump(mode="json", exclude={"digest", "folder"}))
    signal = signal.model_copy(update={"digest": digest})
    write_text(folder / "signal.json", signal.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return signal


def signal_folder(state: Path, case: str, release_digest: str, as_of: datetime) -> Path:
    """Where a signal, its report and its decision lie for good."""
    return state / "monitor" / case / release_digest[:12] / f"{as_of.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


def read_signal(folder: Path) -> Signal:
    """Read the signal that a folder holds."""
    return Signal(**json.loads((folder / "signal.json").read_text(encoding="utf-8")), folder=folder)


def measured_before(folder: Path, inputs: str) -> Signal | None:
    """The signal of the same inputs; that of other ones is removed, as it must not stand beside a newer report."""
    if all((folder / name).is_file() for name in ("signal.json", "report.html", "report.json")):
        found = read_signal(folder)
        if found.inputs == inputs:
            return found
    for name in ("signal.json", "decision.json"):
        (folder / name).unlink(missing_ok=True)
    return None


def fingerprint(rows: pd.DataFrame) -> str:
    """SHA-256 over the values of a frame, hex."""
    import pandas as pd

    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def _performance(known: pd.DataFrame, reference: pd.DataFrame, target: Target, missing: list[str]) -> dict[str, Any]:
    now = metrics_over(known["outcome"].to_numpy(float), known["prediction"].to_numpy(float), target.task)
    outcomes = reference[target.column].to_numpy(float)
    then = metrics_over(outcomes, reference["prediction"].to_numpy(float), target.task)
    for name in metrics_of(target.task):
        if name not in now:
            missing.append(f"{name} was not computed: {_why(known, target)}.")
    bias = float((known["prediction"] - known["outcome"]).mean()) if len(known) else None
    if bias is None:
        missing.append("Bias was not computed: no outcome has arrived.")
    elif target.task == "regression":
        scale = float(reference[target.column].abs().mean())
        if scale > 0:
            bias /= scale
        else:
            bias = None
            missing.append("Bias was not computed: all outcomes of the hold-out are 0, so it is a share of nothing.")
    return {"metrics": now, "reference": then, "bias": bias}


def _why(known: pd.DataFrame, target: Target) -> str:
    if known.empty:
        return "no outcome has arrived"
    return f"all {len(known):,} outcomes are the same" if target.task == "classification" else "it is not finite"


def _drift(
    now: pd.DataFrame,
    reference: pd.DataFrame,
    columns: Sequence[Column],
    config: Monitor,
    folder: Path,
    missing: list[str],
) -> dict[str, Any]:
    drift = measure_drift(some(reference, config.sample), some(now, config.sample), columns, folder)
    for column in drift.columns:
        if column.drifted is None:
            missing.append(f"Drift of {column.column} was not computed: {column.note or 'the distance is not finite'}.")
    if drift.share is None:
        missing.append("The share of drifted columns was not computed: no column could be compared.")
    if drift.prediction is None:
        missing.append(f"Drift of the predictions was not computed: {len(now):,} rows now, {len(reference):,} then.")
    return {
        "columns": drift.columns,
        "drifted_share": drift.share,
        "prediction_drift": drift.prediction,
        "prediction_chance": drift.prediction_chance,
    }


def some(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The same sample of the same rows each time, in their order."""
    return rows if len(rows) <= count else rows.sample(count, random_state=SEED).sort_index()


def _importance(
    known: pd.DataFrame, release: Path, target: Target, config: Monitor, missing: list[str]
) -> dict[str, Any]:
    from tasks.train.importance import importance
    from tasks.train.model_file import load

    path = release / "importance.json"
    then: Mapping[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now: dict[str, float] = {}
    shift = None
    if len(known) < config.min_rows:
        missing.append(
            f"Importance was not computed: {len(known):,} rows with an outcome, {config.min_rows:,} are needed."
        )
    else:
        now = importance(load(release / "model.skops"), known, known["outcome"].to_numpy(float), SEED)
        if any(then.values()):
            shift = sum(abs(now.get(name, 0.0) - then.get(name, 0.0)) for name in {**then, **now})
        else:
            missing.append("Importance shift was not computed: the release tells no importance to compare with.")
    return {"importance": now, "importance_then": dict(then), "importance_shift": shift}
