"""Is the challenger not worse than the champion? A paired bootstrap on the losses of the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

GROUPS = 10_000  # of examples; more rows than this are resampled in groups
CELLS = 4_000_000  # random numbers held at once: 32 MB


@dataclass(frozen=True)
class Comparison:
    """The mean of (challenger's loss - champion's loss), and one-sided bounds of it at the confidence asked for."""

    rows: int
    difference: float
    low: float
    high: float

    def shows_not_worse(self, margin: float) -> bool:
        return self.high <= margin

    def shows_worse(self, margin: float) -> bool:
        return self.low > margin


def compare(
    challenger: np.ndarray,
    champion: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
) -> Comparison:
    """Compare per-example losses, in the examples' same order.

    Each example's two losses stay together, so what is hard for both cancels out. Above 10,000 rows, examples are
    dealt at random into 10,000 groups of equal size, and groups are resampled: the spread of the mean is the same, its
    estimate is 0.7 % uncertain, and time and memory no longer grow with the rows.

    With `clusters`, one value an example, examples of a cluster are alike (the same wording filled anew), and clusters
    are resampled.

    Raises: ValueError when the two don't have the same length, or are empty.
    """
    import numpy as np

    differences = np.asarray(challenger, float) - np.asarray(champion, float)
    if differences.ndim != 1 or not len(differences):
        raise ValueError("losses of the same examples, at least one, are needed")
    random = np.random.default_rng(seed)
    rows = len(differences)
    if clusters is not None:
        sums, sizes = _by_cluster(differences, np.ones(rows), clusters)
    elif rows > GROUPS:
        dealt = random.permutation(differences)
        borders = np.linspace(0, rows, GROUPS + 1).astype(int)
        sizes = np.diff(borders).astype(float)
        sums = np.add.reduceat(dealt, borders[:-1])
    else:
        sizes, sums = np.ones(rows), differences
    low, high = np.quantile(_resample(sums, sizes, resamples, random), [1 - confidence, confidence])
    return Comparison(rows, float(differences.mean()), float(low), float(high))


def interval(
    above: np.ndarray,
    below: np.ndarray,
    clusters: Sequence[Any],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Two-sided bounds of the sum above by the sum below, clusters resampled; None where nothing is below.

    A draw in which nothing is below tells nothing and is left out.
    """
    import numpy as np

    sums, sizes = _by_cluster(np.asarray(above, float), np.asarray(below, float), clusters)
    if not sizes.sum():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        found = _resample(sums, sizes, resamples, np.random.default_rng(seed))
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _by_cluster(above: np.ndarray, below: np.ndarray, clusters: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of each cluster.

    Raises: ValueError when not every example has one.
    """
    import numpy as np

    if len(clusters) != len(above):
        raise ValueError("each example needs a cluster")
    _, members = np.unique(np.asarray(clusters, str), return_inverse=True)
    return np.bincount(members, above), np.bincount(members, below)


def _resample(sums: np.ndarray, sizes: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Means of as many draws of groups, with replacement."""
    import numpy as np

    groups, means = len(sums), np.empty(resamples)
    step = max(1, CELLS // groups)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        chosen = random.integers(0, groups, size=(count, groups), dtype=np.int32)
        means[start : start + count] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    return means
