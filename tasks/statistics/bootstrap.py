"""Bootstrap intervals of paired differences and of ratios, over examples or over clusters of examples.

Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Resampling clusters:
Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.statistics.sample_size import paired_sample_size, z_value

if TYPE_CHECKING:
    import numpy as np

MAX_GROUPS = 10_000  # with more examples than this, random groups of them are resampled
MAX_DRAWS = 4_000_000  # random numbers in memory at once: 32 MB
MIN_CLUSTERS = 8  # fewer resampled clusters give bounds that are far too narrow, and one cluster gives no width at all


@dataclass(frozen=True)
class PairedDifference:
    """The mean of (challenger's loss - champion's loss) with one-sided bounds, in the units of the loss."""

    rows: int
    difference: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def sentence(self) -> str:
        return (
            f"mean difference {self.difference:+.4g}, with {self.confidence:.0%} confidence "
            f"at most {self.high:+.4g} and at least {self.low:+.4g}, of {self.rows:,} examples"
        )

    def rows_needed(self, margin: float) -> int | None:
        """About how many examples show, with a power of 80 %, that a difference of this size is within the margin.

        None when it is not. The deviation is that of the bootstrap, so clusters count.
        """
        deviation = (self.high - self.difference) / z_value(self.confidence) * math.sqrt(self.rows)
        if self.difference >= margin or deviation <= 0:
            return None
        return paired_sample_size(margin - self.difference, deviation, confidence=self.confidence)

    def is_not_worse(self, margin: float) -> bool:
        """Non-inferiority: the upper bound lies within the margin.

        Source: Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials, JAMA 308 (2012).
        """
        return self.high <= margin

    def is_worse(self, margin: float) -> bool:
        """Inferiority: the lower bound lies beyond the margin."""
        return self.low > margin


def paired_bootstrap(
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
) -> PairedDifference:
    """Compare the losses of two models on the same examples: two arrays of shape (examples,), in the same order.

    An example's two losses stay together, so what is hard for both models cancels out. `confidence` is that of each
    one-sided bound. `clusters` names the cluster of each example (examples filled from one template, or of one day);
    clusters are then resampled instead of examples.

    Above 10,000 examples, random groups of equal size are resampled: the spread of the mean is the same, its estimate
    has an error of 0.7 %, and time and memory no longer grow with the examples.

    Raises: ValueError when the lengths differ, or there is no example.
    """
    import numpy as np

    differences = np.asarray(challenger, float) - np.asarray(champion, float)
    if differences.ndim != 1 or not len(differences):
        raise ValueError("losses of the same examples, at least one, are needed")
    random = np.random.default_rng(seed)
    rows = len(differences)
    if clusters is not None:
        sums, sizes = _sums_by_cluster(differences, np.ones(rows), clusters)
    elif rows > MAX_GROUPS:
        shuffled = random.permutation(differences)
        borders = np.linspace(0, rows, MAX_GROUPS + 1).astype(int)
        sizes = np.diff(borders).astype(float)
        sums = np.add.reduceat(shuffled, borders[:-1])
    else:
        sizes, sums = np.ones(rows), differences
    low, high = np.quantile(_resampled_ratios(sums, sizes, resamples, random), [1 - confidence, confidence])
    return PairedDifference(rows, float(differences.mean()), float(low), float(high), confidence)


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    clusters: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Two-sided bounds of sum(numerators) / sum(denominators), each of shape (examples,), with clusters resampled.

    None when the denominators sum to 0. A resample whose denominators sum to 0 is left out.

    Raises: ValueError when not every example has a cluster.
    """
    import numpy as np

    sums, sizes = _sums_by_cluster(np.asarray(numerators, float), np.asarray(denominators, float), clusters)
    if not sizes.sum():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = _resampled_ratios(sums, sizes, resamples, np.random.default_rng(seed))
    low, high = np.nanquantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _sums_by_cluster(
    numerators: np.ndarray, denominators: np.ndarray, clusters: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    if len(clusters) != len(numerators):
        raise ValueError("each example needs a cluster")
    _, members = np.unique(np.asarray(clusters, str), return_inverse=True)
    return np.bincount(members, numerators), np.bincount(members, denominators)


def _resampled_ratios(sums: np.ndarray, sizes: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """One ratio a resample; each resample draws as many groups as there are, with replacement."""
    import numpy as np

    groups, ratios = len(sums), np.empty(resamples)
    step = max(1, MAX_DRAWS // groups)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        chosen = random.integers(0, groups, size=(count, groups), dtype=np.int32)
        ratios[start : start + count] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    return ratios


def resampled_counts(
    members: Sequence[np.ndarray], bins: int, *, resamples: int = 400, seed: int = 0
) -> list[np.ndarray]:
    """How many rows of each resample fall in each bin: for each array of members, shape (resamples, bins).

    All arrays name the bin of the same rows, and one resample draws the same rows for all of them.
    """
    import numpy as np

    random, rows = np.random.default_rng(seed), len(members[0])
    counts = [np.empty((resamples, bins), np.int64) for _ in members]
    for number in range(resamples):
        chosen = random.integers(0, rows, size=rows, dtype=np.int32)
        for each, array in zip(members, counts, strict=True):
            array[number] = np.bincount(each[chosen], minlength=bins)
    return counts
