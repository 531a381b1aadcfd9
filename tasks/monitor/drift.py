"""How far features and predictions have moved from the release's hold-out, with Evidently, and its report.

A column has drifted when its move is significant (a p-value, tasks/statistics/permutation.py) and when it
is large enough to matter (a distance). A test alone calls any change drift once there are rows enough (evidently issue
50); a distance alone calls chance drift when there are few.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.files import write_text
from tasks.features.results import Column
from tasks.monitor.results import ColumnDrift
from tasks.statistics.permutation import jensen_shannon_p_value, share_p_value, wasserstein_p_value

if TYPE_CHECKING:
    import pandas as pd

NUMBER = "wasserstein"  # in standard deviations of the reference
TEXT = "jensenshannon"
ALLOWED = 0.1  # Evidently's own threshold for both, and for a changed share of empty values
FEWEST = 100  # filled values on a side below which a distance says nothing
VALUES = 20  # most frequent texts, of both sides together, that keep their name
EMPTY, OTHER = "(empty)", "(other)"
TENTHS = "prediction (tenths of the hold-out)"


@dataclass(frozen=True)
class Drift:
    """What a comparison found, each chance by itself; the report lies in the folder."""

    columns: tuple[ColumnDrift, ...]
    prediction: float | None  # Jensen-Shannon distance
    prediction_chance: float | None


def measure_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[Column],
    folder: Path,
    prediction: Literal["number", "text"] = "number",
) -> Drift:
    """Compare two frames with the features and `prediction`; write report.html and report.json into the folder.

    The frames are samples already. A column that can't be compared says why.
    """
    import pandas as pd

    then, now, found = {}, {}, {}
    for column in [*columns, Column(name="prediction", kind=prediction, origin="model")]:
        pair = prepare(reference[column.name], current[column.name], column.kind)
        found[column.name] = compare_column(column, *pair, reference[column.name], current[column.name])
        if not found[column.name].note:
            then[column.name], now[column.name] = pair
    methods = {name: found[name].method for name in then}
    if prediction == "number" and "prediction" in then:
        then[TENTHS], now[TENTHS] = _tenths(then["prediction"], now["prediction"])
        methods[TENTHS] = TEXT
    distances = _report(pd.DataFrame(then), pd.DataFrame(now), methods, folder)
    return Drift(
        columns=tuple(
            found[column.name].model_copy(update={"distance": distances.get(column.name)}) for column in columns
        ),
        prediction=distances.get(TENTHS if prediction == "number" else "prediction"),
        prediction_chance=found["prediction"].chance,
    )


def judge_column(drift: ColumnDrift, chance: float | None, rate: float) -> ColumnDrift:
    """Say whether a column has drifted, by its values or by how many are empty, given its adjusted p-value."""
    gone = abs(drift.missing_now - drift.missing_then) > ALLOWED
    empties = f"empty values: {drift.missing_then:.0%} then, {drift.missing_now:.0%} now" if gone else ""
    note = "; ".join(part for part in (drift.note, empties) if part)
    drifted = None
    if chance is not None and (gone or drift.distance is not None):
        drifted = chance <= rate and (gone or (drift.distance or 0.0) > ALLOWED)
    return drift.model_copy(update={"chance": chance, "drifted": drifted, "note": note})


def prepare(then: pd.Series, now: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """Make two columns that Evidently can compare: finite numbers, or texts of which only frequent ones have names."""
    import numpy as np
    import pandas as pd

    if kind == "text":
        # of both sides: what is frequent in one of them by chance would seem to have moved
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
    if 0 < spread < 0.01 or spread > 1e6:  # Evidently takes no spread below .001 for one: give it its multiples
        return (a - a.mean()) / spread, (b - a.mean()) / spread
    return a, b


def compare_column(column: Column, a: pd.Series, b: pd.Series, then: pd.Series, now: pd.Series) -> ColumnDrift:
    """What there is to say of a column before its distance is known: `a` and `b` are `then` and `now`, prepared."""
    gone_then, gone_now = then.isna().to_numpy(), now.isna().to_numpy()
    drift = ColumnDrift(
        column=column.name,
        method=TEXT if column.kind == "text" else NUMBER,
        distance=None,
        chance=None,
        missing_then=round(float(gone_then.mean()), 6),
        missing_now=round(float(gone_now.mean()), 6),
        drifted=None,
    )
    if gone_then.all() and gone_now.all():
        return drift.model_copy(update={"note": "empty then and now"})
    if column.kind == "text":
        few, chances = min(len(a), len(b)), [jensen_shannon_p_value(a.to_numpy(str), b.to_numpy(str))]
    else:
        few = min(int(a.notna().sum()), int(b.notna().sum()))
        chances = [wasserstein_p_value(a.dropna().to_numpy(), b.dropna().to_numpy())] if few >= FEWEST else []
        if gone_then.any() or gone_now.any():
            chances.append(share_p_value(gone_then, gone_now))
    note = "" if few >= FEWEST else f"only {few} values to compare, {FEWEST} are needed"
    known = [chance for chance in chances if chance is not None] if min(len(a), len(b)) >= FEWEST else []
    chance = min(1.0, len(known) * min(known)) if known else None  # of two looks, the better one counts twice
    return drift.model_copy(update={"chance": chance, "note": note})


def _tenths(then: pd.Series, now: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Name the tenth of the reference that each prediction falls in: equal width would hide what a long tail hides."""
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
    """Run Evidently, keep its report, and give the distance by column.

    One ValueDrift a column, not DataDriftPreset: the preset computes each distance three times (1.6 s against 5 s for
    25 columns of 5,000 rows).
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, method in methods.items() if method == NUMBER],
        categorical_columns=[name for name, method in methods.items() if method == TEXT],
    )
    metrics = [ValueDrift(column=name, method=method, threshold=ALLOWED) for name, method in methods.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # correlations of constant columns, which nobody asked for
        snapshot = Report(metrics).run(
            *(Dataset.from_pandas(frame[list(methods)], data_definition=definition) for frame in (now, then))
        )
        html = snapshot.get_html_str(as_iframe=False)
    found = _rounded(json.loads(snapshot.json()))
    write_text(folder / "report.json", json.dumps(found, indent=1, sort_keys=True) + "\n")
    write_text(folder / "report.html", _with_steady_ids(html))
    distances = {metric["config"]["column"]: float(metric["value"]) for metric in found["metrics"]}
    return {name: value for name, value in distances.items() if math.isfinite(value)}


def _rounded(value: Any) -> Any:
    """Round floats to 9 digits: Evidently sums over sets of texts, whose order changes from process to process."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _with_steady_ids(html: str) -> str:
    """Number Evidently's random ids in order of appearance, so that the same data gives the same page."""
    steady: dict[str, str] = {}
    pattern = r"(?<![0-9a-f])[0-9a-f]{8}-?[0-9a-f]{4}-?[47][0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}(?![0-9a-f])"
    return re.sub(pattern, lambda found: steady.setdefault(found[0], f"id{len(steady)}"), html)
