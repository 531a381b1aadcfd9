"""The rows that a release scored of a table without time: requests from the gateway's log, and scored files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import NoDataYet, NothingServed
from tasks.core.places import Places
from tasks.features.results import Column
from tasks.monitor.config import TabularSpec
from tasks.monitor.data_quality import daily_quality
from tasks.monitor.results import ScoredRows
from tasks.monitor.signal import Window
from tasks.monitor.tabular.outcome_files import read_outcomes
from tasks.monitor.tabular.outcomes import NUMBERED, ScoredWithOutcomes
from tasks.predict.tabular import read_predictions
from tasks.release.results import Release
from tasks.train.classes import DEFAULT_CLASSES, Classes, prediction_columns

if TYPE_CHECKING:
    import pandas as pd

REQUESTS, FILES = "requests", "scored files"  # where a row was scored
TRUE_WORDS = {True: 1.0, False: 0.0}


def read_served(
    release: Release, spec: TabularSpec, window: Window, logged: ScoredRows | None, places: Places
) -> ScoredWithOutcomes:
    """The rows of a window, each with the outcome of its feedback or, by its id, of a file of outcomes.

    A row's id is the example_id that was sent, or else its key columns. An id of two different rows names neither: such
    rows count for drift, and get an outcome by feedback alone.

    Raises: NothingServed when there is no row.
    """
    import pandas as pd

    from tasks.train.tabular.model_file import load

    classes = load(release.model).classes
    notes, parts = [], []
    if logged is None:
        notes.append("Requests are not counted: DRIFTLINE_GATEWAY_LOG is none, so the log stores no values.")
    else:
        requests, unusable = _read_requests(logged.path, release.columns, classes, spec.keys)
        parts.append(requests)
        if calls := logged.unreadable + unusable:
            notes.append(f"{calls:,} requests are not counted: they are longer than the log stores, or were cut in it.")
    try:
        scored = read_predictions(places.predictions, window.case, window.release, window.start, window.end)
        parts.append(scored.assign(origin=FILES, label=None))
    except NoDataYet:
        pass
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else None
    if rows is None:
        raise NothingServed(
            f"There is nothing to monitor yet: no row was scored since {window.start:%Y-%m-%d %H:%M} UTC.",
            where=f"release {window.release[:12]}",
            found="; ".join(["no request in the gateway's log, no scored file", *notes]),
            todo=f"Send requests to /v1/predict/{window.case} (driftline up), or score a file: "
            f"driftline predict {window.case} FILE. Then: driftline monitor {window.case}",
        )
    rows = rows.sort_values(["event_timestamp", "example_id"], kind="stable", ignore_index=True)
    columns = [column.name for column in release.columns]
    rows = _without_repeats(rows, columns)
    unique = rows["example_id"].notna() & ~rows["example_id"].duplicated(keep=False)
    if spec.rows_are_numbered:
        unique[:] = False
        notes.append(NUMBERED)
    elif ambiguous := int((~unique & rows["example_id"].notna()).sum()):
        notes.append(
            f"{ambiguous:,} rows share their id with a different row, so no outcome of a file is joined to them: send "
            "an example_id that names one row."
        )
    outcomes = read_outcomes(places.predictions, window.case, window.as_of)
    by_id = rows["example_id"].where(unique).map(outcomes)
    outcome = rows["label"].map(lambda label: _outcome(label, classes)).where(rows["label"].notna(), by_id)
    if classes and isinstance(classes[0], str):
        outcome = typed = outcome.map(str, na_action="ignore").astype(object)
    else:
        typed = pd.to_numeric(outcome, errors="coerce").astype("float64")
    strange = outcome[outcome.notna() & (~typed.isin(classes) if classes else typed.isna())]
    if len(strange):
        allowed = ", ".join(map(str, classes)) or "a number"
        notes.append(f"{len(strange):,} outcomes are not one of {allowed}, for instance {strange.iloc[0]}.")
    positions = pd.Series([f"row {number}" for number in range(len(rows))])
    ids = rows["example_id"].where(unique, positions)
    origins = {str(name): int(count) for name, count in rows["origin"].value_counts(sort=False).items()}
    rows = rows.drop(columns=["label", "origin"]).assign(example_id=ids, outcome=typed)
    return ScoredWithOutcomes(rows, notes=tuple(notes), quality=daily_quality(rows, columns), origins=origins)


def _without_repeats(rows: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """One row, the last, of those that are equal in id and values: a client sends a row again."""
    named = rows["example_id"].notna()
    repeated = rows[["example_id", *features]].astype(str).duplicated(keep="last")
    return rows[~(named & repeated & rows["label"].isna())].reset_index(drop=True)


def _read_requests(
    path: Path, columns: Sequence[Column], classes: Classes, keys: Sequence[str]
) -> tuple[pd.DataFrame, int]:
    """The logged rows as predictions are stored, and the number of rows that can't be read."""
    import numpy as np
    import pandas as pd
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    features, scores, places, unusable = [], [], [], 0
    texts = zip(table["features"].to_pylist(), table["prediction"].to_pylist(), strict=True)
    for position, (sent, scored) in enumerate(texts):
        try:
            row, answer = json.loads(sent), json.loads(scored)
            scores.append(_score(answer, classes))
            features.append({column.name: _value(row.get(column.name), column.kind) for column in columns})
            features[-1]["example_id"] = _identity(row, keys)
            places.append(position)
        except (ValueError, TypeError, AttributeError, LookupError):
            unusable += 1
    if not places:
        return pd.DataFrame(), unusable
    kinds = {column.name: "float64" if column.kind == "number" else "object" for column in columns}
    chosen = table.take(places)
    rows = pd.DataFrame(features).astype(kinds).assign(**prediction_columns(np.array(scores, float), classes))
    times = chosen["at"].to_pandas()
    return rows.assign(event_timestamp=times, label=chosen["label"].to_pandas(), origin=REQUESTS), unusable


def _identity(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    if row.get("example_id") is not None:
        return str(row["example_id"])
    values = [row.get(key) for key in keys]
    return "/".join(map(str, values)) if keys and all(value is not None for value in values) else None


def _value(value: Any, kind: str) -> float | str | None:
    """A value of a request as the release reads it."""
    if kind == "text":
        return (str(value).strip() or None) if value is not None else None
    if isinstance(value, str):
        value = value.strip()
    return TRUE_WORDS[value] if isinstance(value, bool) else float(value) if value not in (None, "") else float("nan")


def _score(answer: Mapping[str, Any], classes: Classes) -> float | list[float]:
    """The prediction in a response, as `predict` returns it."""
    if not classes:
        return float(answer["prediction"])
    if classes == DEFAULT_CLASSES:
        return float(answer["score"])
    scores = [float(answer["scores"][str(name)]) for name in classes]
    return scores if len(scores) > 2 else scores[1]


def _outcome(label: str | None, classes: Classes) -> str | float | None:
    """A label of feedback as an outcome."""
    if label is None:
        return None
    value = json.loads(label)
    return float(value) if isinstance(value, bool) and not (classes and isinstance(classes[0], str)) else value
