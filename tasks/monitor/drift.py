"""How far features and predictions have moved from the release's hold-out, with Evidently, and its report.

Distances, not p-values: a test's verdict depends on the number of rows (evidently issue 50), a distance estimates the
same thing from any number. What two samples of this size differ by when nothing has changed is allowed on top.
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

from tasks.features.results import Column
from tasks.foundation.files import write_text
from tasks.monitor.results import ColumnDrift

if TYPE_CHECKING:
    import pandas as pd

NUMBER = "wasserstein"  # in standard deviations of the reference
TEXT = "jensenshannon"
ALLOWED = 0.1  # Evidently's own threshold for both, and for a changed share of empty values
FEWEST = 100  # filled values on a side below which chance would hide all but a break
VALUES = 20  # most frequent texts of the reference that keep their name; thousands of rare ones differ by chance
EMPTY, OTHER = "(empty)", "(other)"
TENTHS = "prediction (tenths of the hold-out)"


@dataclass(frozen=True)
class Drift:
    """What a comparison found; the report lies in the folder."""

    columns: tuple[ColumnDrift, ...]
    share: float | None
    prediction: float | None
    prediction_chance: float | None


def measure_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[Column],
    folder: Path,
    prediction: Literal["number", "text"] = "number",
) -> Drift:
    """Compare two frames with the features and `prediction`; write report.html and report.json into the folder.

    The frames are samples already. A column that can't be compared says why, and counts in no share.
    """
    import pandas as pd

    then, now, drifts = {}, {}, {}
    for column in [*columns, Column(name="prediction", kind=prediction, origin="model")]:
        pair = _prepare(reference[column.name], current[column.name], column.kind)
        drifts[column.name] = _expect(column, *pair, reference[column.name], current[column.name])
        if drifts[column.name].allowed is not None:
            then[column.name], now[column.name] = pair
    tests = {name: (drift.method, drift.allowed) for name, drift in drifts.items() if drift.allowed is not None}
    chance = None
    if "prediction" in tests and prediction == "text":
        chance = round(tests["prediction"][1] - ALLOWED, 6)
    elif "prediction" in tests:
        then[TENTHS], now[TENTHS] = _tenths(then["prediction"], now["prediction"])
        chance = round(_chance_of_texts(then[TENTHS], now[TENTHS]), 6)
        tests[TENTHS] = (TEXT, ALLOWED + chance)
    distances = _report(pd.DataFrame(then), pd.DataFrame(now), tests, folder)
    found = [_judge(drifts[column.name], distances.get(column.name)) for column in columns]
    judged = [drift.drifted for drift in found if drift.drifted is not None]
    return Drift(
        columns=tuple(found),
        share=round(sum(judged) / len(judged), 6) if judged else None,
        prediction=distances.get(TENTHS if prediction == "number" else "prediction"),
        prediction_chance=chance,
    )


def _prepare(then: pd.Series, now: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """Make two columns that Evidently can compare: finite numbers, or texts of which only frequent ones have names."""
    import numpy as np
    import pandas as pd

    if kind == "text":
        frequent = then.dropna().astype(str).value_counts(sort=False).sort_index(kind="stable")
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


def _expect(column: Column, a: pd.Series, b: pd.Series, then: pd.Series, now: pd.Series) -> ColumnDrift:
    """What is allowed for a column, before its distance is known."""
    drift = ColumnDrift(
        column=column.name,
        method=TEXT if column.kind == "text" else NUMBER,
        distance=None,
        allowed=None,
        missing_then=round(float(then.isna().mean()), 6),
        missing_now=round(float(now.isna().mean()), 6),
        drifted=None,
    )
    if column.kind == "text":
        few = min(len(a), len(b))
        chance = _chance_of_texts(a, b)
    else:
        few = min(int(a.notna().sum()), int(b.notna().sum()))
        chance = 2.1 * math.sqrt(1 / a.notna().sum() + 1 / b.notna().sum()) if few else 0.0
    if then.isna().all() and now.isna().all():
        return drift.model_copy(update={"note": "empty then and now"})
    if few >= FEWEST:
        return drift.model_copy(update={"allowed": round(ALLOWED + chance, 6)})
    return drift.model_copy(update={"note": f"only {few} values to compare, {FEWEST} are needed"})


def _judge(drift: ColumnDrift, distance: float | None) -> ColumnDrift:
    """Say whether the column has drifted: by its values, or by how many are empty."""
    gone = abs(drift.missing_now - drift.missing_then) > ALLOWED
    empties = f"empty values: {drift.missing_then:.0%} then, {drift.missing_now:.0%} now" if gone else ""
    note = "; ".join(part for part in (drift.note, empties) if part)
    if distance is None or drift.allowed is None:
        return drift.model_copy(update={"drifted": True if gone else None, "note": note})
    drifted = gone or distance > drift.allowed
    return drift.model_copy(update={"distance": distance, "drifted": drifted, "note": note})


def _chance_of_texts(a: pd.Series, b: pd.Series) -> float:
    """The Jensen-Shannon distance that 19 of 20 pairs of samples from one distribution stay below."""
    free = max(len(set(a) | set(b)) - 1, 1)
    chi_squared = free * (1 - 2 / (9 * free) + 1.645 * math.sqrt(2 / (9 * free))) ** 3  # its 95 % point, closely
    return math.sqrt(chi_squared / 8 * (1 / max(len(a), 1) + 1 / max(len(b), 1)))


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


def _report(then: pd.DataFrame, now: pd.DataFrame, tests: dict[str, tuple[str, Any]], folder: Path) -> dict[str, float]:
    """Run Evidently, keep its report, and give the distance by column.

    One ValueDrift a column, not DataDriftPreset: the preset computes each distance three times (1.6 s against 5 s for
    25 columns of 5,000 rows).
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, (method, _) in tests.items() if method == NUMBER],
        categorical_columns=[name for name, (method, _) in tests.items() if method == TEXT],
    )
    metrics = [ValueDrift(column=name, method=method, threshold=allowed) for name, (method, allowed) in tests.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # correlations of constant columns, which nobody asked for
        snapshot = Report(metrics).run(
            *(Dataset.from_pandas(frame[list(tests)], data_definition=definition) for frame in (now, then))
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
