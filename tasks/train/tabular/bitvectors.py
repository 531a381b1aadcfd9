"""The trees of a gradient boosting as bit masks: all trees of many rows at once, by numpy alone.

Each split is a mask over its tree's leaves, in their order from left to right, without those that a row cannot reach
that goes right. The lowest bit that all masks leave is the row's leaf. Of each column, the masks of all trees stand in
a table by the place of a value among the column's thresholds, or by its category. After QuickScorer (Lucchese et al.,
SIGIR 2015).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.train.compat import boosting_parts, boosting_trees

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES_A_TREE = 256  # of masks that a row reads; beyond, going through each tree is quicker
MAX_TABLE_BYTES = 64_000_000
ROWS_AT_ONCE = 256  # as many as the processor's cache holds


class Split(NamedTuple):
    """A split of a tree: its mask for rows that go right."""

    tree: int
    mask: Any
    node: Any  # scikit-learn's record
    left: np.ndarray | None  # bits of the categories that go left


@dataclass(frozen=True)
class MaskTable:
    """The masks of a column's splits, shape (places, trees); the last place is that of a missing value."""

    column: int
    values: np.ndarray  # the thresholds, or the known categories; both sorted
    categorical: bool
    masks: np.ndarray

    def places(self, values: np.ndarray) -> np.ndarray:
        """The table's row for each value of the column."""
        import numpy as np

        last = len(self.masks) - 1
        places = np.searchsorted(self.values, values)
        if not self.categorical:
            places[np.isnan(values)] = last
            return places
        if not last:
            return np.zeros(len(values), np.intp)
        places[places == last] = 0
        return np.where(self.values[places] == values, places, last)


@dataclass(frozen=True)
class MaskedTrees:
    """All trees of a boosting, one or one a class in each iteration."""

    tables: tuple[MaskTable, ...]
    leaves: np.ndarray  # the values of all trees' leaves
    first: np.ndarray  # of each tree, the position of its first leaf
    baseline: np.ndarray  # by output

    def sums(self, matrix: np.ndarray) -> np.ndarray:
        """The sum of a row's leaves and the baseline, shape (rows, outputs), added in scikit-learn's order."""
        import numpy as np

        sums = np.empty((len(matrix), len(self.baseline)))
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            sums[rows] = self._sum(matrix[rows])
        return sums

    def _sum(self, matrix: np.ndarray) -> np.ndarray:
        import numpy as np

        outputs, (first, *rest) = len(self.baseline), self.tables
        masks = first.masks.take(first.places(matrix[:, first.column]), 0)
        buffer = np.empty_like(masks)
        for table in rest:
            table.masks.take(table.places(matrix[:, table.column]), 0, out=buffer, mode="clip")
            masks &= buffer
        one = masks.dtype.type(1)
        leaf = np.bitwise_count((masks & -masks) - one).astype(np.int32)  # the position of the lowest bit
        leaf += self.first
        values = self.leaves.take(leaf)
        rows = len(matrix)
        sums = np.empty((rows, outputs))
        for output in range(outputs):
            # two rows at least: those of one alone would be summed in another order than tree after tree
            column = np.zeros((1 + len(self.first) // outputs, max(rows, 2)))
            column[0], column[1:, :rows] = self.baseline[output], values[:, output::outputs].T
            sums[:, output] = np.add.reduce(column, 0)[:rows]
        return sums


def mask_trees(estimator: Any, known: Sequence[np.ndarray]) -> MaskedTrees | None:
    """The trees of a fitted HistGradientBoosting, whose categorical columns have these sorted known categories.

    None where a tree has one leaf alone or more than 64, or where the masks would be slow or large.
    """
    import numpy as np

    trees = boosting_trees(estimator)
    sizes = [int(tree.nodes["is_leaf"].sum()) for tree in trees]
    types = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
    kind: Any = next((each for bits, each in types.items() if max(sizes) <= bits), None)
    if kind is None or max(sizes) == 1:
        return None
    splits, leaves = _read_trees(trees, kind)
    width = np.dtype(kind).itemsize
    values = {
        feature: known[feature] if feature < len(known) else np.unique([split.node["num_threshold"] for split in each])
        for feature, each in sorted(splits.items())
    }
    bytes_a_tree = width * sum(len(each) + 2 for each in values.values())
    if width * len(splits) > MAX_BYTES_A_TREE or len(trees) * bytes_a_tree > MAX_TABLE_BYTES:
        return None
    order = np.arange(estimator.n_features_in_)
    if known:  # the trees number categorical columns before the others
        categorical = estimator.is_categorical_
        order = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    tables = []
    for feature, each in values.items():
        right = _by_category(splits[feature], each) if feature < len(known) else _by_threshold(splits[feature], each)
        masks = np.full((len(right), len(trees)), np.iinfo(kind).max, kind)
        for split, goes_right in zip(splits[feature], right.T, strict=True):
            masks[goes_right, split.tree] &= split.mask
        tables.append(MaskTable(int(order[feature]), each, feature < len(known), masks))
    first = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
    return MaskedTrees(tuple(tables), np.array(leaves), first, boosting_parts(estimator)[0].ravel())


def _read_trees(trees: Sequence[Any], kind: Any) -> tuple[dict[int, list[Split]], list[float]]:
    """The splits by column, as the trees number them, and all leaves' values from left to right."""
    import numpy as np

    splits: dict[int, list[Split]] = defaultdict(list)
    leaves: list[float] = []
    for number, tree in enumerate(trees):
        start = len(leaves)
        stack: list[tuple[int, int | None]] = [(0, None)]
        while stack:
            position, left_start = stack.pop()  # of a split whose left side is read: where that began
            node = tree.nodes[position]
            if node["is_leaf"]:
                leaves.append(float(node["value"]))
            elif left_start is None:
                stack += [(int(node["right"]), None), (position, len(leaves) - start), (int(node["left"]), None)]
            else:
                lost = (1 << (len(leaves) - start)) - (1 << left_start)
                bits = tree.raw_left_cat_bitsets[node["bitset_idx"]] if node["is_categorical"] else None
                mask = kind(int(np.iinfo(kind).max) ^ lost)
                splits[int(node["feature_idx"])].append(Split(number, mask, node, bits))
    return splits, leaves


def _by_threshold(splits: Sequence[Split], thresholds: np.ndarray) -> np.ndarray:
    """Which splits go right at each place among the thresholds, and at a missing value: (places, splits)."""
    import numpy as np

    right = np.zeros((len(thresholds) + 2, len(splits)), bool)
    right[1:-1] = np.array([split.node["num_threshold"] for split in splits]) <= thresholds[:, None]
    right[-1] = [not split.node["missing_go_to_left"] for split in splits]
    return right


def _by_category(splits: Sequence[Split], known: np.ndarray) -> np.ndarray:
    """Which splits go right at each category, and at another or none: (categories + 1, splits)."""
    import numpy as np

    right = np.zeros((len(known) + 1, len(splits)), bool)
    codes = np.arange(len(known))
    for number, split in enumerate(splits):
        assert split.left is not None
        right[:-1, number] = split.left[codes // 32] >> (codes % 32) & 1 == 0
        right[-1, number] = not split.node["missing_go_to_left"]
    return right
