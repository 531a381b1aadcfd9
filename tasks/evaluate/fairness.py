"""Fairness of a table's model: rates by group of the sensitive columns, and gates on their largest differences.

Definitions: Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning (2016); a difference of groups is
the largest minus the smallest. Intervals come from a bootstrap over examples. The largest difference of noisy rates is
too large on average, so its bounds are those of the pairs of groups: the largest of their upper bounds, and the largest
of their lower bounds, which are corrected for how many pairs there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tasks.evaluate.config import OF_REGRESSIONS, Fairness, FairnessGate
from tasks.evaluate.results import Criterion
from tasks.train.classes import DECISION_THRESHOLD

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MIN_CLASS_ROWS = 20  # fewer positives or negatives of a group say little about its rate of them
SMALL_GROUPS = "fairness_small_groups"
SEARCH_RESAMPLES = 200  # of each trial of a search
NAMED = 6  # small groups that a note names


@dataclass(frozen=True)
class Groups:
    """The groups of one sensitive column, or of several together."""

    name: str  # such as sex, or sex and marriage
    names: tuple[str, ...]  # of the groups that are large enough
    codes: np.ndarray  # group of each example; -1: too small
    small: dict[str, int]  # rows of the groups that are too small


@dataclass(frozen=True)
class Disparity:
    """The largest difference of a metric between groups, with one-sided bounds."""

    groups: str
    highest: str
    lowest: str
    difference: float
    low: float
    high: float

    def sentence(self, rows: int) -> str:
        return (
            f"by {self.groups}: {self.highest} beside {self.lowest}, difference {self.difference:.3f}, at most "
            f"{self.high:.3f} and at least {self.low:.3f}, of {rows:,} examples"
        )


def fairness(
    config: Fairness, table: pd.DataFrame, y: np.ndarray, p: np.ndarray
) -> tuple[dict[str, Any], list[Criterion]]:
    """Rates by group with their intervals, and a criterion for each gate; a warning names groups that are too small.

    `y` and `p` are target and prediction of each row: of two classes 0 or 1 and the second one's probability.
    """
    import numpy as np

    if p.ndim > 1:
        required, note = "two classes, or a regression", "decisions among three classes or more are not compared"
        return {}, [Criterion(name="fairness", observed=None, required=required, passed=False, note=note)]
    known = np.isfinite(y) & np.isfinite(p)
    table, y, p = table[known], y[known], p[known]
    sets = [make_groups(table, columns, config.min_rows) for columns in column_sets(config)]
    sampled = {each.name: _resampled(each, y, p, config) for each in sets}
    tables = {each.name: _by_group(each, sampled[each.name], config) for each in sets}
    criteria = [_criterion(gate, sets, sampled, config, len(y)) for gate in config.gates]
    small = {f"{each.name}: {name}": rows for each in sets for name, rows in each.small.items()}
    if small:
        named = "; ".join(
            f"{name} ({rows:,} rows)" for name, rows in sorted(small.items(), key=lambda each: -each[1])[:NAMED]
        )
        more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
        criteria.append(
            Criterion(
                name=SMALL_GROUPS,
                observed=float(min(small.values())),
                required=f">= {config.min_rows} hold-out rows of each group",
                passed=False,
                note=f"nothing is known of {named}{more}: their rates would be chance",
                blocking=False,
            )
        )
    return tables, criteria


def shown_unfair(config: Fairness, table: pd.DataFrame, y: np.ndarray, p: np.ndarray) -> str:
    """Which difference between groups is shown to be too large on these rows; empty where none is."""
    quick = config.model_copy(update={"resamples": SEARCH_RESAMPLES})
    _, criteria = fairness(quick, table, y, p)
    shown = [each for each in criteria if each.blocking and each.conclusive and not each.passed]
    return f"{shown[0].name} {shown[0].note}" if shown else ""


def largest_difference(
    config: Fairness, table: pd.DataFrame, y: np.ndarray, p: np.ndarray, metric: str
) -> Disparity | None:
    """The largest difference of one metric over all sets of groups; None when fewer than two groups have it."""
    sets = [make_groups(table, columns, config.min_rows) for columns in column_sets(config)]
    tail = 1 - config.confidence
    found = [disparity(each, _resampled(each, y, p, config), metric, (tail / len(sets), tail)) for each in sets]
    return max((each for each in found if each is not None), key=lambda each: each.high, default=None)


def column_sets(config: Fairness) -> list[tuple[str, ...]]:
    """The sensitive columns, alone and crossed."""
    depth = min(config.crossed, len(config.columns))
    return [chosen for size in range(1, depth + 1) for chosen in combinations(config.columns, size)]


def make_groups(table: pd.DataFrame, columns: Sequence[str], min_rows: int) -> Groups:
    import numpy as np
    import pandas as pd

    texts = table[list(columns)].astype(object).where(table[list(columns)].notna(), "missing").astype(str)
    labels = pd.Series(texts.agg(", ".join, axis=1) if len(columns) > 1 else texts.iloc[:, 0])
    counts = labels.value_counts().sort_index()
    large = tuple(str(name) for name in counts[counts >= min_rows].index)
    small = {str(name): int(rows) for name, rows in counts[counts < min_rows].items()}
    codes = pd.Index(large).get_indexer(pd.Index(labels)) if large else np.full(len(labels), -1)
    return Groups(" and ".join(columns), large, codes, small)


def _resampled(groups: Groups, y: np.ndarray, p: np.ndarray, config: Fairness) -> dict[str, np.ndarray]:
    """Each metric by group, of shape (1 + resamples, groups): first as observed, then of each resample."""
    import numpy as np

    random, used = np.random.default_rng(0), groups.codes >= 0
    codes, y, p, count = groups.codes[used], y[used], p[used], len(groups.names)
    if not count:
        return {name: np.full((1, 0), np.nan) for name in ("rows", *RATES)}
    chosen_class = p >= DECISION_THRESHOLD
    cells = codes * 4 + (y > 0.5) * 2 + chosen_class
    gap, is_binary = p - y, set(np.unique(y)) <= {0.0, 1.0}
    wrong = (chosen_class != (y > 0.5)).astype(float) if is_binary else np.abs(gap)
    tables = np.empty((config.resamples + 1, count, 4))
    sums = np.empty((config.resamples + 1, count, 2))
    for number in range(config.resamples + 1):
        rows = random.integers(0, len(y), len(y), dtype=np.int32) if number else np.arange(len(y))
        tables[number] = np.bincount(cells[rows], minlength=4 * count).reshape(count, 4)
        for column, values in enumerate((gap, wrong)):
            sums[number, :, column] = np.bincount(codes[rows], values[rows], minlength=count)
    rates = _rates(tables, sums)
    return rates if is_binary else {name: rates[name] for name in ("rows", *OF_REGRESSIONS)}


RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "calibration_gap", "error")


def _rates(tables: np.ndarray, sums: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics from counts of (group, class, decision) and from sums of errors; NaN where too few rows have it."""
    import numpy as np

    _, chosen_no, rejected_yes, chosen_yes = np.moveaxis(tables, -1, 0)
    rows, positives = tables.sum(axis=-1), rejected_yes + chosen_yes
    negatives = rows - positives
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = {
            "selection_rate": (chosen_no + chosen_yes) / rows,
            "true_positive_rate": chosen_yes / positives,
            "false_positive_rate": chosen_no / negatives,
            "calibration_gap": sums[..., 0] / rows,
            "error": sums[..., 1] / rows,
        }
    for name, enough in (("true_positive_rate", positives), ("false_positive_rate", negatives)):
        rates[name][:, enough[0] < MIN_CLASS_ROWS] = np.nan
    return {"rows": rows, **rates}


def _by_group(groups: Groups, sampled: Mapping[str, np.ndarray], config: Fairness) -> dict[str, Any]:
    """Each metric of each group with its interval; `rows` alone for a group that is too small."""
    import numpy as np

    tail = (1 - config.confidence) / 2
    tables: dict[str, Any] = {name: {"rows": rows} for name, rows in groups.small.items()}
    for i, name in enumerate(groups.names):
        tables[name] = {"rows": int(sampled["rows"][0, i])}
        for metric in [name for name in RATES if name in sampled]:
            values = sampled[metric][:, i]
            if np.isfinite(values[0]):
                low, high = np.nanquantile(values[1:], [tail, 1 - tail])
                tables[name] |= {metric: float(values[0]), f"{metric}_low": float(low), f"{metric}_high": float(high)}
    return dict(sorted(tables.items()))


def disparity(groups: Groups, sampled: Mapping[str, np.ndarray], metric: str, tails: tuple[float, float]) -> Any:
    """The largest difference between groups; None when fewer than two have the metric.

    Equalised odds is the larger of the differences of the true and the false positive rate. `tails` are the
    probabilities left out below the lower and above the upper bound.
    """
    import numpy as np

    found = None
    for name in ("true_positive_rate", "false_positive_rate") if metric == "equalized_odds" else (metric,):
        values = sampled[name][:, np.isfinite(sampled[name][0])]
        names = [each for each, known in zip(groups.names, np.isfinite(sampled[name][0]), strict=True) if known]
        if len(names) < 2:
            continue
        between = values[1:, :, None] - values[1:, None, :]  # each group minus each other one, of each resample
        observed, pairs = float(np.nanmax(values[0]) - np.nanmin(values[0])), len(names) * (len(names) - 1)
        low = max(0.0, float(np.nanquantile(between, tails[0] / pairs, axis=0).max()))
        high = max(observed, float(np.nanquantile(between, 1 - tails[1], axis=0).max()))
        highest, lowest = names[int(np.nanargmax(values[0]))], names[int(np.nanargmin(values[0]))]
        each = Disparity(groups.name, highest, lowest, observed, low, high)
        found = each if found is None or each.high > found.high else found
    return found


def _criterion(
    gate: FairnessGate, sets: Sequence[Groups], sampled: Mapping[str, Any], config: Fairness, rows: int
) -> Criterion:
    """Passed: every difference is shown to be small enough. Failed: one is shown to be too large. Else: inconclusive.

    That all must pass needs no correction; the bound that rejects is corrected for how many differences there are.
    """
    tail = 1 - config.confidence
    tails = tail / (len(sets) * max(1, len(config.gates))), tail
    found = [disparity(each, sampled[each.name], gate.metric, tails) for each in sets]
    known = [each for each in found if each is not None]
    name, required = f"fairness_{gate.metric}", f"<= {gate.at_most:g} between groups"
    if not known:
        note = f"fewer than two groups have {config.min_rows} rows"
        return Criterion(name=name, observed=None, required=required, passed=False, note=note)
    worst = max(known, key=lambda each: (each.low > gate.at_most, each.high))
    passed = all(each.high <= gate.at_most for each in known)
    rejected = worst.low > gate.at_most
    note = ("" if passed else "too large: " if rejected else "not shown: ") + worst.sentence(rows)
    if not passed and not rejected and worst.difference < gate.at_most:
        ratio = (worst.high - worst.difference) / (gate.at_most - worst.difference)
        note += f"; if that stays so, about {round(rows * ratio**2, -2):,.0f} examples would show it"
    return Criterion(name=name, observed=worst.high, required=required, passed=passed, note=note, conclusive=rejected)
