"""How well single columns, or the parts of a sum, tell a target: the usual signs of a leak.

Each column is a model of its own: the mean target of its bins (quantiles of numbers, categories of texts, and one bin
of missing values), fitted on some rows and scored on others. Only sums by bin are used, so 1,500 columns of 10,000 rows
take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.statistics.binned_metrics import auc

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEAK = 0.98  # AUC or r2 that no honest single column is expected to reach
MAX_ROWS = 10_000  # of each side; a leak shows in fewer
PARTS_ROWS = 2_000
MAX_PARTS = 4  # of a sum or a product
BINS = 64
ROWS_PER_BIN = 3
Z = 1.645  # of a one-sided bound with 95 % confidence


@dataclass(frozen=True)
class ColumnScore:
    """The AUC or r2 that one column reaches alone on rows that it was not fitted on."""

    value: float
    low: float  # one-sided bound with 95 % confidence: what chance does on a few rows is no leak

    @property
    def is_leak(self) -> bool:
        return self.low >= LEAK


@dataclass(frozen=True)
class Parts:
    """Columns that give the target as their weighted sum or product, and how exactly."""

    columns: tuple[str, ...]
    r2: float
    form: Literal["sum", "product"]


def single_column_scores(
    table: pd.DataFrame, target: pd.Series, holdout: np.ndarray, task: Literal["classification", "regression"]
) -> dict[str, ColumnScore]:
    """The AUC (of three classes or more: the mean of each against the rest) or r2 that each column reaches alone.

    `holdout` is a mask of the rows to score on; the others are fitted on. Of what seems a leak both sides are
    exchanged, and the lower score counts: what chance does on a few rows is no leak. Of a number, values and ranks are
    predicted, and the higher r2 counts: a few large values hide a copy of the target. Every row needs a target. Of many
    rows a random sample is used. A column whose score can't be computed is left out.
    """
    import numpy as np
    import pandas as pd

    rows = _sample(np.asarray(holdout, bool), MAX_ROWS)
    table, target, held = table.iloc[rows], target.iloc[rows], np.asarray(holdout, bool)[rows]
    if task == "classification":
        codes, names = pd.factorize(target)
        outcomes = np.eye(len(names))[codes][:, int(len(names) == 2) :]  # of two classes the second is enough
    else:
        outcomes = np.column_stack([target.to_numpy("float64"), target.rank().to_numpy("float64")])
    scores = {}
    for name in table.columns:
        score = _score(table[name], outcomes, ~held, task)
        if score and score.is_leak:
            score = min(score, _score(table[name], outcomes, held, task) or score, key=lambda each: each.low)
        if score:
            scores[str(name)] = score
    return scores


def find_parts(numbers: pd.DataFrame, target: pd.Series, holdout: np.ndarray, required: float = 0.999) -> Parts | None:
    """Up to four columns whose weighted sum or product gives the target on the hold-out with at least this r2.

    Columns are added one by one, each time the one that explains most of what is left (orthogonal matching pursuit).
    """
    import numpy as np

    rows = _sample(np.asarray(holdout, bool), PARTS_ROWS)
    x, y = numbers.iloc[rows].to_numpy("float64"), target.iloc[rows].to_numpy("float64")
    held = np.asarray(holdout, bool)[rows]
    for form, matrix, values in _forms(x, y):
        names = numbers.columns[matrix[1]]
        columns, r2 = _pursue(matrix[0], values, held, required)
        if len(columns) > 1 and r2 >= required:
            return Parts(tuple(str(names[i]) for i in columns), r2, form)
    return None


def _forms(
    x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[Literal["sum", "product"], tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """The columns, their positions and the target, as they are and as logarithms; columns with gaps are left out."""
    import numpy as np

    whole = np.flatnonzero(np.isfinite(x).all(axis=0))
    yield "sum", (x[:, whole], whole), y
    positive = whole[(x[:, whole] > 0).all(axis=0)]
    if (y > 0).all():
        yield "product", (np.log(x[:, positive]), positive), np.log(y)


def _pursue(x: np.ndarray, y: np.ndarray, held: np.ndarray, required: float) -> tuple[list[int], float]:
    import numpy as np

    centre, scale = x[~held].mean(axis=0), x[~held].std(axis=0)
    usable = scale > 0
    x = np.where(usable, (x - centre) / np.where(usable, scale, 1), 0.0)
    y = y - y[~held].mean()
    known, rest, total = x[~held], y[~held], float(np.sum((y[held] - y[held].mean()) ** 2))
    chosen: list[int] = []
    r2 = 0.0
    while len(chosen) < min(MAX_PARTS, int(usable.sum())) and total > 0 and r2 < required:
        gains = np.abs(known.T @ rest)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        weights = np.linalg.lstsq(known[:, chosen], y[~held], rcond=None)[0]
        rest = y[~held] - known[:, chosen] @ weights
        r2 = 1 - float(np.sum((y[held] - x[held][:, chosen] @ weights) ** 2)) / total
    return chosen, r2


def _sample(holdout: np.ndarray, limit: int) -> np.ndarray:
    """The positions of so many rows of each side at most, in order."""
    import numpy as np

    random = np.random.default_rng(0)
    sides = [random.permutation(np.flatnonzero(side))[:limit] for side in (~holdout, holdout)]
    return np.sort(np.concatenate(sides))


def _score(values: pd.Series, outcomes: np.ndarray, fitted: np.ndarray, task: str) -> ColumnScore | None:
    """The score of one column: fitted on the rows of the mask, scored on the others. None: it can't be computed."""
    import numpy as np
    import pandas as pd

    numbers, rows = _numbers(values), len(fitted) - fitted.sum()
    bins = _number_bins(numbers, fitted) if numbers is not None else pd.factorize(values)[0] + 1
    if task == "regression":
        outcomes = outcomes - outcomes[~fitted].mean(axis=0)  # so that r2 needs sums by bin alone
    sides = _sums(bins, outcomes, fitted), _sums(bins, outcomes, ~fitted)
    with np.errstate(divide="ignore", invalid="ignore"):
        if task == "regression":
            each = _explained(*sides) / np.sum(outcomes[~fitted] ** 2, axis=0)
            deviations = 2 * (1 - each) * np.sqrt(np.maximum(each, 0) / rows)
        else:
            each = _areas(*sides)
            if numbers is not None:
                each = np.fmax(each, _ordered_areas(numbers[~fitted], outcomes[~fitted]))
            positives = sides[1].values.sum(axis=0)
            deviations = np.sqrt(each * (1 - each) / np.minimum(positives, rows - positives))
    known = np.isfinite(each) & np.isfinite(deviations)
    if not known.any():
        return None
    each, deviations = each[known], deviations[known]
    chosen = slice(None) if task == "classification" else each.argmax()
    value = float(np.mean(each[chosen]))
    return ColumnScore(value, value - Z * float(np.mean(deviations[chosen])))


def _explained(fitted: Sums, scored: Sums) -> np.ndarray:
    """How much of the sum of squares around 0 the means of the fitted bins explain, by outcome."""
    import numpy as np

    means = np.where(fitted.rows > 0, fitted.values / np.maximum(fitted.rows, 1), fitted.mean)
    return (2 * means * scored.values - means**2 * scored.rows).sum(axis=0)


def _areas(fitted: Sums, scored: Sums) -> np.ndarray:
    """The AUC of each class against the rest, with bins ordered by the class's share among the fitted rows."""
    import numpy as np

    order = np.argsort((fitted.values + fitted.mean) / (fitted.rows + 1), axis=0, kind="stable").T
    positives = np.take_along_axis(scored.values.T, order, axis=1)
    negatives = scored.rows[:, 0][order] - positives
    return auc(np.stack([negatives, positives], axis=2).reshape(len(order), -1))


def _ordered_areas(numbers: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The AUC of each class against the rest by the numbers themselves, in either direction; gaps are lowest."""
    import numpy as np
    from scipy.stats import rankdata

    ranks, positives = rankdata(np.nan_to_num(numbers, nan=-np.inf)), outcomes.sum(axis=0)
    areas = (ranks @ outcomes - positives * (positives + 1) / 2) / (positives * (len(ranks) - positives))
    return np.maximum(areas, 1 - areas)


@dataclass(frozen=True)
class Sums:
    """Rows, of shape (bins, 1), and sums of the outcomes, of shape (bins, outcomes), by bin."""

    rows: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.values.sum(axis=0) / self.rows.sum()


def _sums(bins: np.ndarray, outcomes: np.ndarray, side: np.ndarray) -> Sums:
    import numpy as np

    members, count = bins[side], int(bins.max()) + 1
    values = [np.bincount(members, outcome, minlength=count) for outcome in outcomes[side].T]
    return Sums(np.bincount(members, minlength=count)[:, None], np.stack(values, axis=1))


def _numbers(values: pd.Series) -> np.ndarray | None:
    """The column as numbers with NaN; None when it holds texts."""
    import numpy as np
    import pandas as pd

    return values.to_numpy("float64", na_value=np.nan) if pd.api.types.is_numeric_dtype(values) else None


def _number_bins(numbers: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The bin of each row; 0 holds missing values. Each value is a bin where they are few, else quantiles are."""
    import numpy as np

    known = ~np.isnan(numbers)
    ordered = np.sort(numbers[fitted & known])
    edges = ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
    count = max(2, min(BINS, len(ordered) // ROWS_PER_BIN))
    if len(edges) > count:
        edges = np.unique(ordered[np.linspace(0, len(ordered), count + 1)[:-1].astype(int)])
    return np.where(known, np.maximum(1, np.searchsorted(edges, numbers, side="right")), 0)
