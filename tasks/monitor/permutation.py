"""Could a change be chance? The release's reference and the window are pooled and dealt anew, some thousand times.

A permutation test: when nothing has changed, any deal is as likely as the one that happened, so its p-value keeps what
it promises for a hundred rows and for a million. Rows are counted in cells first (quantiles, texts, outcomes), and
counts are dealt: the cost does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Change: TypeAlias = "Callable[[np.ndarray, np.ndarray], np.ndarray]"
DEALS = 4999  # a p-value is 1/5000 at the least: enough for some 250 things watched at a rate of .05
SEED = 0
CELLS = 20  # of a number; few enough to be quick, and most of what a distance sees


def permutation_p_value(counts: Sequence[np.ndarray], change: Change) -> float | None:
    """The p-value of a change: how often a deal changes as much as the window did, or more.

    `counts` are those of the reference and of the window by cell; `change` takes two arrays (deals, cells) of them and
    gives one number a deal, the larger the further apart. None where the change itself can't be computed.
    """
    import numpy as np

    then, now = counts
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = float(change(then[None], now[None])[0])
        if not np.isfinite(observed):
            return None
        pool = then + now
        random = np.random.default_rng(SEED)
        dealt = random.multivariate_hypergeometric(pool, int(now.sum()), size=DEALS, method="marginals")
        # a deal that can't be computed counts against us
        as_far = ~(change(pool - dealt, dealt) < observed - 1e-12 * max(1.0, abs(observed)))
    return float((1 + as_far.sum()) / (1 + DEALS))


def adjusted(chances: Mapping[str, float | None]) -> dict[str, float]:
    """p-values as Benjamini and Hochberg adjust them for being many: those up to a rate are no chance.

    Of what is then called a change, a share of at most that rate is none; when nothing has changed at all, a window
    calls anything one with a probability of at most that rate. What has no p-value is left out.
    """
    from scipy.stats import false_discovery_control

    known = {name: value for name, value in chances.items() if value is not None}
    if not known:
        return {}
    return dict(zip(known, (round(float(q), 6) for q in false_discovery_control(list(known.values()))), strict=True))


def cells_of(*sides: np.ndarray, cells: int = CELLS) -> tuple[np.ndarray, ...]:
    """The cell of each value: quantiles of all sides together, so that no side chooses them; equal values share one."""
    import numpy as np

    pool = np.concatenate(sides)
    edges = np.unique(np.quantile(pool, np.linspace(0, 1, cells + 1)[1:-1])) if len(pool) else np.zeros(0)
    return tuple(np.searchsorted(edges, side, side="right") for side in sides)


def counts_of(sides: Sequence[np.ndarray], many: int) -> list[np.ndarray]:
    """How many rows of each side fall in each of so many cells."""
    import numpy as np

    return [np.bincount(side, minlength=many) for side in sides]


def means_of(cells: np.ndarray, values: np.ndarray, many: int) -> np.ndarray:
    """The mean value of each cell; 0 in an empty one."""
    import numpy as np

    return np.bincount(cells, values, minlength=many) / np.maximum(np.bincount(cells, minlength=many), 1)


def chance_of_numbers(then: np.ndarray, now: np.ndarray) -> float | None:
    """The p-value of the Wasserstein distance between two sets of finite numbers."""
    import numpy as np

    a, b = cells_of(then, now)
    places = means_of(np.concatenate([a, b]), np.concatenate([then, now]), CELLS)
    used = np.flatnonzero(np.bincount(np.concatenate([a, b]), minlength=CELLS))
    gaps = np.diff(places[used])

    def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(np.cumsum(_shares(first) - _shares(second), axis=1)[:, :-1]) @ gaps

    return permutation_p_value([side[used] for side in counts_of((a, b), CELLS)], distance)


def chance_of_texts(then: np.ndarray, now: np.ndarray) -> float | None:
    """The p-value of the Jensen-Shannon distance between two sets of texts."""
    import numpy as np

    names, places = np.unique(np.concatenate([then, now]).astype(str), return_inverse=True)
    sides = places[: len(then)], places[len(then) :]
    return permutation_p_value(counts_of(sides, len(names)), _divergence)


def chance_of_share(then: np.ndarray, now: np.ndarray) -> float | None:
    """The p-value of the change of a share, whichever way; two arrays of truths."""
    return permutation_p_value(
        counts_of((then.astype(int), now.astype(int)), 2), lambda a, b: abs(_shares(a) - _shares(b))[:, 1]
    )


def chance_of_ratio(then: np.ndarray, now: np.ndarray, sign: float = 1.0) -> float | None:
    """The p-value of a rise (sign -1: a fall) of sum by sum; rows of (above, below), which are few different ones."""
    import numpy as np

    different, places = np.unique(np.concatenate([then, now]), axis=0, return_inverse=True)
    places = places.reshape(-1)  # numpy 2.0 alone gives it another shape
    sides = places[: len(then)], places[len(then) :]

    def rise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (was, was_below), (is_now, below) = ((side @ different).T for side in (a, b))
        return sign * (is_now / below - was / was_below)

    return permutation_p_value(counts_of(sides, len(different)), rise)


def chance_of_mean(then: np.ndarray, now: np.ndarray) -> float | None:
    """The p-value of a rise of the mean of any numbers."""
    import numpy as np

    a, b = cells_of(then, now)
    values = means_of(np.concatenate([a, b]), np.concatenate([then, now]), CELLS)
    return permutation_p_value(
        counts_of((a, b), CELLS), lambda then, now: _shares(now) @ values - _shares(then) @ values
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def _divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon, as a distance would order it."""
    from scipy.special import rel_entr

    a, b = _shares(first), _shares(second)
    middle = (a + b) / 2
    return rel_entr(a, middle).sum(axis=1) + rel_entr(b, middle).sum(axis=1)
