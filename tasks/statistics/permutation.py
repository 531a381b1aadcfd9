"""Permutation tests between a reference and a window, on counts by bin, so that the cost does not grow with the rows.

When nothing has changed, every way to divide the pooled rows into reference and window is equally likely. The p-value
is the share of random divisions that differ at least as much as the observed one, so it is valid for a hundred rows
and for a million (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010). Rows are first counted in bins
(quantiles, texts, outcomes); the counts of a random division then follow a multivariate hypergeometric distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

# takes reference and window, each of shape (permutations, bins); returns one number a permutation, larger is further
Statistic: TypeAlias = "Callable[[np.ndarray, np.ndarray], np.ndarray]"
PERMUTATIONS = 4999  # the smallest p-value is 1/5000: enough for about 250 tests at a rate of .05
ROW_PERMUTATIONS = 1999
BATCH = 200  # permutations of rows in memory at once: about 6 MB
SEED = 0
BINS = 20  # of a number; few enough to be fast, and they keep most of what a distance sees


def permutation_p_value(counts: Sequence[np.ndarray], statistic: Statistic) -> float | None:
    """The share of permutations whose statistic is at least the observed one.

    `counts` are two integer arrays of shape (bins,): the reference's and the window's. None when the observed statistic
    is not finite.
    """
    import numpy as np

    reference, window = counts
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = float(statistic(reference[None], window[None])[0])
        if not np.isfinite(observed):
            return None
        pool = reference + window
        random = np.random.default_rng(SEED)
        permuted = random.multivariate_hypergeometric(pool, int(window.sum()), size=PERMUTATIONS, method="marginals")
        # a permutation that can't be computed counts as extreme, so that the test errs on the safe side
        extreme = ~(statistic(pool - permuted, permuted) < observed - 1e-12 * max(1.0, abs(observed)))
    return float((1 + extreme.sum()) / (1 + PERMUTATIONS))


def row_permutation_p_value(reference: np.ndarray, window: np.ndarray, statistic: Statistic, seed: int = SEED) -> float:
    """The p-value of a statistic of column sums: rows of shape (rows, columns) are permuted whole.

    `statistic` takes the sums of reference and window, each of shape (permutations, columns).
    """
    import numpy as np

    pool, total = np.concatenate([reference, window]), reference.sum(axis=0) + window.sum(axis=0)
    random, permuted = np.random.default_rng(seed), []
    for start in range(0, ROW_PERMUTATIONS, BATCH):
        keys = random.random((min(BATCH, ROW_PERMUTATIONS - start), len(pool)))
        chosen = np.argpartition(keys, len(window) - 1, axis=1)[:, : len(window)]
        mask = np.zeros_like(keys)
        np.put_along_axis(mask, chosen, 1.0, axis=1)
        sums = mask @ pool
        permuted.append(statistic(total - sums, sums))
    observed = float(statistic(reference.sum(axis=0)[None], window.sum(axis=0)[None])[0])
    return float((1 + (np.concatenate(permuted) >= observed - 1e-12).sum()) / (1 + ROW_PERMUTATIONS))


def benjamini_hochberg(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Adjusted p-values: calling a change all that lie at or below a rate keeps the false discoveries at that rate.

    When nothing has changed at all, a window reports any change with a probability of at most that rate. A missing
    p-value is left out. Source: Benjamini and Hochberg, Controlling the False Discovery Rate (1995).
    """
    from scipy.stats import false_discovery_control

    known = {name: value for name, value in p_values.items() if value is not None}
    if not known:
        return {}
    return dict(zip(known, (round(float(q), 6) for q in false_discovery_control(list(known.values()))), strict=True))


def quantile_bins(*samples: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, ...]:
    """The bin of each value, as one integer array a sample; equal values share a bin.

    The quantiles are those of all samples together, so that no sample chooses them.
    """
    import numpy as np

    pool = np.concatenate(samples)
    edges = np.unique(np.quantile(pool, np.linspace(0, 1, bins + 1)[1:-1])) if len(pool) else np.zeros(0)
    return tuple(np.searchsorted(edges, sample, side="right") for sample in samples)


def bin_counts(samples: Sequence[np.ndarray], bins: int) -> list[np.ndarray]:
    """How many rows of each sample fall in each bin."""
    import numpy as np

    return [np.bincount(sample, minlength=bins) for sample in samples]


def bin_means(members: np.ndarray, values: np.ndarray, bins: int) -> np.ndarray:
    """The mean value of each bin; 0 in an empty one. `members` holds the bin of each value."""
    import numpy as np

    return np.bincount(members, values, minlength=bins) / np.maximum(np.bincount(members, minlength=bins), 1)


def wasserstein_p_value(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The p-value of the Wasserstein distance between two samples of finite numbers."""
    import numpy as np

    a, b = quantile_bins(reference, window)
    both = np.concatenate([a, b])
    centres = bin_means(both, np.concatenate([reference, window]), BINS)
    used = np.flatnonzero(np.bincount(both, minlength=BINS))
    gaps = np.diff(centres[used])

    def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(np.cumsum(_shares(first) - _shares(second), axis=1)[:, :-1]) @ gaps

    return permutation_p_value([counts[used] for counts in bin_counts((a, b), BINS)], distance)


def jensen_shannon_p_value(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The p-value of the Jensen-Shannon distance between two samples of texts."""
    import numpy as np

    names, members = np.unique(np.concatenate([reference, window]).astype(str), return_inverse=True)
    samples = members[: len(reference)], members[len(reference) :]
    return permutation_p_value(bin_counts(samples, len(names)), _divergence)


def share_p_value(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The two-sided p-value of a change of a share; two arrays of booleans."""
    return permutation_p_value(
        bin_counts((reference.astype(int), window.astype(int)), 2), lambda a, b: abs(_shares(a) - _shares(b))[:, 1]
    )


def ratio_p_value(reference: np.ndarray, window: np.ndarray, sign: float = 1.0) -> float | None:
    """The p-value of a rise (sign -1: a fall) of sum(numerators) / sum(denominators).

    Both arrays have the shape (rows, 2): numerator and denominator. Each distinct row is a bin, so they should be few.
    """
    import numpy as np

    distinct, members = np.unique(np.concatenate([reference, window]), axis=0, return_inverse=True)
    members = members.reshape(-1)  # numpy 2.0 alone returns another shape
    samples = members[: len(reference)], members[len(reference) :]

    def rise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (before, before_denominator), (after, after_denominator) = ((counts @ distinct).T for counts in (a, b))
        return sign * (after / after_denominator - before / before_denominator)

    return permutation_p_value(bin_counts(samples, len(distinct)), rise)


def mean_p_value(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The one-sided p-value of a rise of the mean."""
    import numpy as np

    a, b = quantile_bins(reference, window)
    values = bin_means(np.concatenate([a, b]), np.concatenate([reference, window]), BINS)
    return permutation_p_value(
        bin_counts((a, b), BINS), lambda first, second: _shares(second) @ values - _shares(first) @ values
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def _divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The Jensen-Shannon divergence, which orders permutations as the distance does. Source: Lin (1991)."""
    from scipy.special import rel_entr

    a, b = _shares(first), _shares(second)
    middle = (a + b) / 2
    return rel_entr(a, middle).sum(axis=1) + rel_entr(b, middle).sum(axis=1)
