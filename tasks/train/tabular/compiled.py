"""A fitted gradient boosting or forest, compiled: quicker, and equal to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.train.compat import boosting_parts, boosting_trees, encoded_boosting
from tasks.train.tabular.bitvectors import MaskedTrees, mask_trees

if TYPE_CHECKING:
    import numpy as np
    import treelite

MAX_ROWS = 256  # of more rows, scikit-learn's own loop is faster than treelite's
MAX_FOREST_ROWS = 16  # of more rows, a forest's own trees are faster
MAX_FOREST_NODES = 500_000  # a larger forest is not held in memory twice
PROBES = 256  # rows on which both must agree, or the model is not compiled


@dataclass(frozen=True)
class TreeliteTrees:
    """The trees of a boosting that `mask_trees` can't hold."""

    trees: treelite.Model
    outputs: int  # sums a row: one, or one a class
    categories: tuple[tuple[int, np.ndarray], ...]  # by position of a categorical column, its known ones, sorted

    def sums(self, matrix: np.ndarray) -> np.ndarray:
        """The sum of a row's leaves and the baseline, shape (rows, outputs)."""
        import treelite

        if self.categories:
            matrix = matrix.copy()
            for position, known in self.categories:
                matrix[:, position] = _positions(matrix[:, position], known)
        margins = treelite.gtil.predict(self.trees, matrix, nthread=1, pred_margin=True)
        return margins.reshape(len(matrix), self.outputs)


@dataclass(frozen=True)
class CompiledBoosting:
    """The trees of a histogram gradient boosting, and its loss, which turns their sums into predictions."""

    trees: MaskedTrees | TreeliteTrees
    loss: Any

    def takes(self, rows: int) -> bool:
        """Whether so many rows are scored faster than by scikit-learn."""
        return rows <= MAX_ROWS or isinstance(self.trees, MaskedTrees)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Predictions of encoded rows: probabilities (rows, classes), or values (rows,); as the estimator's own."""
        import numpy as np

        sums = self.trees.sums(matrix)
        rows, outputs = sums.shape
        # two rows at least, by column, as scikit-learn has them: it decides the order in which a softmax sums
        sums = np.asfortranarray(np.resize(sums, (max(rows, 2), outputs)))
        if hasattr(self.loss, "predict_proba"):
            predictions = self.loss.predict_proba(sums)
        else:
            predictions = self.loss.link.inverse(sums.ravel())
        return np.asarray(predictions[:rows], np.float64)


@dataclass(frozen=True)
class CompiledForest:
    """The trees of a random forest, or of extremely randomized trees."""

    trees: treelite.Model

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities (rows, classes), or values (rows, 1), of encoded rows in single precision."""
        import numpy as np
        import treelite

        return np.asarray(treelite.gtil.predict(self.trees, matrix.astype(np.float64), nthread=1)[:, 0])


def compile_forest(forest: Any) -> CompiledForest | None:
    """Compile a fitted forest; None of a large one, of several targets, or where a probe's prediction differs."""
    import numpy as np
    import treelite

    trees = [tree.tree_ for tree in forest.estimators_]
    if forest.n_outputs_ > 1 or sum(tree.node_count for tree in trees) > MAX_FOREST_NODES:
        return None
    compiled = CompiledForest(treelite.sklearn.import_model(forest))
    thresholds = np.unique(np.concatenate([tree.threshold[tree.feature >= 0] for tree in trees])).astype(np.float32)
    probes = _draw(thresholds, forest.n_features_in_).astype(np.float32)
    equal = np.array_equal(compiled.predict(probes), predict_by_trees(forest, probes, slice(None)))
    return compiled if equal else None


def predict_by_trees(forest: Any, matrix: np.ndarray, output: Any) -> np.ndarray:
    """A forest's prediction for a few rows: the same sum in the same order, without a parallel call for each tree."""
    total: Any = 0.0
    for tree in forest.estimators_:
        total += tree.tree_.predict(matrix)[:, output]
    return total / len(forest.estimators_)


def compile_estimator(estimator: Any) -> CompiledBoosting | None:
    """Compile a fitted HistGradientBoosting, which may be calibrated.

    None of another estimator, or where a probe's prediction differs.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from tasks.train.tabular.calibrated import CalibratedScores, calibrated_model

    calibrated = calibrated_model(estimator)
    boosting = estimator if calibrated is None else calibrated
    if not isinstance(boosting, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        return None
    import numpy as np

    _, loss = boosting_parts(boosting)
    encoded, known = encoded_boosting(boosting)
    trees = mask_trees(boosting, known) or _treelite_trees(boosting, encoded, known)
    compiled = CompiledBoosting(trees, loss if calibrated is None else CalibratedScores(estimator))
    probes = _probes(boosting)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = _predict(estimator, probes)
        equal = np.array_equal(compiled.predict(probes), expected, equal_nan=True)
    return compiled if equal else None


def _treelite_trees(estimator: Any, encoded: Any, known: Sequence[np.ndarray]) -> TreeliteTrees:
    import numpy as np
    import treelite

    baseline, _ = boosting_parts(estimator)
    trees = treelite.sklearn.import_model(encoded)
    trees.get_header_accessor().set_field("base_scores", np.zeros(baseline.size))
    # scikit-learn adds the trees to the baseline, treelite would add the baseline to their sum: as a tree it is first
    whole = treelite.Model.concatenate([_constant_trees(baseline, estimator), trees])
    columns = np.flatnonzero(estimator.is_categorical_).tolist() if known else []
    return TreeliteTrees(whole, baseline.size, tuple(zip(columns, known, strict=True)))


def _positions(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Each value's position among the sorted known ones; NaN of another value and of a missing one."""
    import numpy as np

    if not len(known):
        return np.full(len(values), np.nan)
    places = np.searchsorted(known, values)
    places[places == len(known)] = 0
    return np.where(known[places] == values, places, np.nan)


def _constant_trees(baseline: np.ndarray, estimator: Any) -> treelite.Model:
    """A tree of one leaf for each output."""
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    outputs = baseline.size
    task = "kRegressor" if not hasattr(estimator, "classes_") else "kBinaryClf" if outputs == 1 else "kMultiClf"
    builder = ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=Metadata(
            num_feature=estimator.n_features_in_,
            task_type=task,
            average_tree_output=False,
            num_target=1,
            num_class=[outputs],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=TreeAnnotation(num_tree=outputs, target_id=[0] * outputs, class_id=[*range(outputs)]),
        postprocessor=PostProcessorFunc(name="identity"),
        base_scores=[0.0] * outputs,
    )
    for value in baseline.ravel().tolist():
        builder.start_tree()
        builder.start_node(0)
        builder.leaf(value)
        builder.end_node()
        builder.end_tree()
    return builder.commit()


def _probes(estimator: Any) -> np.ndarray:
    """Rows at, beside and far from the thresholds of the trees, with missing values and unknown categories."""
    import numpy as np

    nodes = np.concatenate([tree.nodes for tree in boosting_trees(estimator)])
    nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
    probes = _draw(np.unique(nodes["num_threshold"]), estimator.n_features_in_)
    categorical = estimator.is_categorical_
    if categorical is not None:
        codes = np.append(np.arange(-1.0, 255.0), np.nan)
        random = np.random.default_rng(1)
        probes[:, categorical] = random.choice(codes, (PROBES, int(categorical.sum())))
    return probes


def _draw(thresholds: np.ndarray, columns: int) -> np.ndarray:
    """Rows of values at, beside and far from the thresholds, and missing ones."""
    import numpy as np

    far = np.finfo(thresholds.dtype).max / 2
    beside = np.nextafter(thresholds, np.asarray(np.inf, thresholds.dtype))
    values = np.concatenate([thresholds, beside, [np.nan, 0.0, -far, far]])
    return np.random.default_rng(0).choice(values, (PROBES, columns))


def _predict(estimator: Any, matrix: np.ndarray) -> np.ndarray:
    import numpy as np

    predict = getattr(estimator, "predict_proba", estimator.predict)
    return np.asarray(predict(matrix), np.float64)
