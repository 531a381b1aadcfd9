"""How far features and predictions have moved from the release's hold-out, with Evidently, and its report.

A column has drifted when its move is significant (a p-value, tasks/statistics/permutation.py) and large enough to
matter (a distance). With enough rows a test alone calls any change drift (evidently issue 50); with few rows a distance
alone calls chance drift.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.files import write_text
from tasks.features.results import Column
from tasks.monitor.results import DRIFT_NUMBERS, DRIFT_PAGE, ColumnDrift
from tasks.statistics.permutation import jensen_shannon_p_value, share_p_value, wasserstein_p_value

if TYPE_CHECKING:
    import pandas as pd

NUMBER = "wasserstein"  # in standard deviations of the reference
TEXT = "jensenshannon"
THRESHOLD = 0.1  # Evidently's own threshold for both, and for a changed share of empty values
MIN_VALUES = 100  # on each side; a distance of fewer says nothing
VALUES = 20  # most frequent texts of both sides together; all others are merged
UNSEEN = 5  # texts that are named
EMPTY, OTHER = "(empty)", "(other)"
TENTHS = "prediction (tenths of the hold-out)"


@dataclass(frozen=True)
class Drift:
    """The result of a comparison, with p-values that are not yet adjusted; the report lies in the folder."""

    columns: tuple[ColumnDrift, ...]
    prediction: float | None  # Jensen-Shannon distance
    prediction_p_value: float | None
    prediction_note: str = ""  # why the distance could not be computed


def measure_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[Column],
    folder: Path,
    prediction: Literal["number", "text"] = "number",
    categories: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> Drift:
    """Compare two frames with the features and `prediction`; write drift.html and drift.json into the folder.

    The frames are samples. `categories` are those that training knew, by column. The note of a column that can't be
    compared has the reason.
    """
    import pandas as pd

    then, now, drifts = {}, {}, {}
    for column in [*columns, Column(name="prediction", kind=prediction, origin="model")]:
        pair = prepare(reference[column.name], current[column.name], column.kind)
        drift = compare_column(column, *pair, reference[column.name], current[column.name])
        known = categories.get(column.name)
        drifts[column.name] = drift if known is None else _count_unseen(drift, known, reference, current)
        if not drifts[column.name].note:
            then[column.name], now[column.name] = pair
    methods = {name: drifts[name].method for name in then}
    if prediction == "number" and "prediction" in then:
        then[TENTHS], now[TENTHS] = _tenths(then["prediction"], now["prediction"])
        methods[TENTHS] = TEXT
    distances = _report(pd.DataFrame(then), pd.DataFrame(now), methods, folder)
    return Drift(
        columns=tuple(
            drifts[column.name].model_copy(update={"distance": distances.get(column.name)}) for column in columns
        ),
        prediction=distances.get(TENTHS if prediction == "number" else "prediction"),
        prediction_p_value=drifts["prediction"].p_value,
        prediction_note=drifts["prediction"].note,
    )


def decide_drift(drift: ColumnDrift, p_value: float | None, rate: float) -> ColumnDrift:
    """Decide whether a column has drifted, by its values or its missing values, from its adjusted p-value."""
    gone = abs(drift.missing_now - drift.missing_then) > THRESHOLD
    strange = (drift.unseen_now or 0.0) - (drift.unseen_then or 0.0) > THRESHOLD
    empties = f"empty values: {drift.missing_then:.0%} then, {drift.missing_now:.0%} now" if gone else ""
    others = f"values that training never saw: {drift.unseen_now or 0:.1%} ({', '.join(drift.unseen)})"
    note = "; ".join(part for part in (drift.note, empties, others if drift.unseen else "") if part)
    drifted = None
    if p_value is not None and (gone or strange or drift.distance is not None):
        drifted = p_value <= rate and (gone or strange or (drift.distance or 0.0) > THRESHOLD)
    return drift.model_copy(update={"p_value": p_value, "drifted": drifted, "note": note})


def prepare(then: pd.Series, now: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """Two columns that Evidently can compare: finite numbers, or texts with the rare ones merged."""
    import numpy as np
    import pandas as pd

    if kind == "text":
        # of both sides: a text that is frequent in one of them by chance would seem to have moved
        both = pd.concat([then, now]).dropna().astype(str)
        frequent = both.value_counts(sort=False).sort_index(kind="stable")
        names = set(frequent.sort_values(ascending=False, kind="stable").index[:VALUES])
        a, b = (side.reset_index(drop=True).astype(object) for side in (then, now))
        return tuple(  # type: ignore[return-value]
            side.map(lambda value: EMPTY if pd.isna(value) else str(value) if str(value) in names else OTHER)
            for side in (a, b)
        )
    a, b = (
        pd.Series(side.to_numpy(dtype="float64", na_value=np.nan)).replace([np.inf, -np.inf], np.nan)
        for side in (then, now)
    )
    spread = float(a.std()) if a.notna().any() else 0.0
    if 0 < spread < 0.01 or spread > 1e6:  # Evidently ignores a spread below .001
        return (a - a.mean()) / spread, (b - a.mean()) / spread
    return a, b


def compare_column(column: Column, a: pd.Series, b: pd.Series, then: pd.Series, now: pd.Series) -> ColumnDrift:
    """The drift of a column without its distance: `a` and `b` are `then` and `now` as `prepare` returns them."""
    gone_then, gone_now = then.isna().to_numpy(), now.isna().to_numpy()
    drift = ColumnDrift(
        column=column.name,
        method=TEXT if column.kind == "text" else NUMBER,
        distance=None,
        p_value=None,
        missing_then=round(float(gone_then.mean()), 6),
        missing_now=round(float(gone_now.mean()), 6),
        drifted=None,
    )
    if gone_then.all() and gone_now.all():
        return drift.model_copy(update={"note": "empty then and now"})
    if column.kind == "text":
        few, p_values = min(len(a), len(b)), [jensen_shannon_p_value(a.to_numpy(str), b.to_numpy(str))]
    else:
        few = min(int(a.notna().sum()), int(b.notna().sum()))
        p_values = [wasserstein_p_value(a.dropna().to_numpy(), b.dropna().to_numpy())] if few >= MIN_VALUES else []
        if gone_then.any() or gone_now.any():
            p_values.append(share_p_value(gone_then, gone_now))
    note = "" if few >= MIN_VALUES else f"only {few} values to compare, {MIN_VALUES} are needed"
    known = [value for value in p_values if value is not None] if min(len(a), len(b)) >= MIN_VALUES else []
    p_value = min(1.0, len(known) * min(known)) if known else None  # Bonferroni
    return drift.model_copy(update={"p_value": p_value, "note": note})


def _count_unseen(
    drift: ColumnDrift, known: frozenset[str], reference: pd.DataFrame, current: pd.DataFrame
) -> ColumnDrift:
    """The shares of values that training never saw; a missing value is none of them."""
    then, now = (side[drift.column].dropna().astype(str) for side in (reference, current))
    unseen = now[~now.isin(known)]
    return drift.model_copy(
        update={
            "unseen_then": round(float((~then.isin(known)).sum()) / max(len(reference), 1), 6),
            "unseen_now": round(len(unseen) / max(len(current), 1), 6),
            "unseen": tuple(unseen.value_counts().sort_index(kind="stable").nlargest(UNSEEN, keep="first").index),
        }
    )


def _tenths(then: pd.Series, now: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The tenth of the reference that each prediction falls in: bins of equal width would hide a long tail."""
    import numpy as np
    import pandas as pd

    then, now = then.dropna(), now.dropna()
    edges = np.unique(np.quantile(then, np.linspace(0.1, 0.9, 9)))
    if len(edges) == 1:  # one value only: below it, it, above it
        edges = np.array([np.nextafter(edges[0], -np.inf), edges[0]])
    names = [f"{i}: up to {edge:.4g}" for i, edge in enumerate(edges)] + [f"{len(edges)}: more"]
    labels = np.array(names, dtype=object)
    return pd.Series(labels[np.searchsorted(edges, then)]), pd.Series(labels[np.searchsorted(edges, now)])


def _report(then: pd.DataFrame, now: pd.DataFrame, methods: dict[str, str], folder: Path) -> dict[str, float]:
    """Run Evidently, write its report, and return the distance by column.

    One ValueDrift a column, not DataDriftPreset: the preset computes each distance three times (1.6 s against 5 s for
    25 columns of 5,000 rows).
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, method in methods.items() if method == NUMBER],
        categorical_columns=[name for name, method in methods.items() if method == TEXT],
    )
    metrics = [ValueDrift(column=name, method=method, threshold=THRESHOLD) for name, method in methods.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # from correlations of constant columns, which are not used
        snapshot = Report(metrics).run(
            *(Dataset.from_pandas(frame[list(methods)], data_definition=definition) for frame in (now, then))
        )
        html = snapshot.get_html_str(as_iframe=False)
    report = _rounded(json.loads(snapshot.json()))
    write_text(folder / DRIFT_NUMBERS, json.dumps(report, indent=1, sort_keys=True) + "\n")
    write_text(folder / DRIFT_PAGE, _with_stable_ids(html))
    distances = {metric["config"]["column"]: float(metric["value"]) for metric in report["metrics"]}
    return {name: value for name, value in distances.items() if math.isfinite(value)}


def _rounded(value: Any) -> Any:
    """Round floats to 9 digits: Evidently sums over sets of texts, whose order changes from process to process."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _with_stable_ids(html: str) -> str:
    """Number Evidently's random ids in order of appearance, so that the same data gives the same page."""
    stable: dict[str, str] = {}
    pattern = r"(?<![0-9a-f])[0-9a-f]{8}-?[0-9a-f]{4}-?[47][0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}(?![0-9a-f])"
    return re.sub(pattern, lambda match: stable.setdefault(match[0], f"id{len(stable)}"), html)
