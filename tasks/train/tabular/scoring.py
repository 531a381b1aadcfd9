"""Fast predictions of a fitted pipeline: one row in well under a millisecond, or many rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.core.errors import DataError
from tasks.features.results import Column
from tasks.train.classes import Classes, normalize_label
from tasks.train.tabular import compiled
from tasks.train.tabular.compiled import (
    CompiledBoosting,
    CompiledForest,
    compile_estimator,
    compile_forest,
    predict_by_trees,
)
from tasks.train.tabular.fast_encoders import fast_encoder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.pipeline import Pipeline
    from threadpoolctl import ThreadpoolController

    from tasks.train.tabular.ensemble import Ensemble
    from tasks.train.tabular.group_thresholds import GroupThresholds

    Values: TypeAlias = pd.DataFrame | Mapping[str, Sequence[Any] | np.ndarray]


SINGLE_THREAD_ROWS = 2048  # up to so many rows are scored on one thread
DIRECT_FOREST_ROWS = 64  # up to so many rows, calling a forest's trees directly is faster


@dataclass(frozen=True)
class Model:
    """A fitted scikit-learn pipeline (an encoding step and an estimator), prepared to run fast.

    For one row, a pipeline spends most of its time in pandas. So the fitted steps are called directly with plain
    arrays: text columns as objects, all others as floats, never both in one array.
    """

    pipeline: Pipeline
    blocks: tuple[tuple[tuple[Column, ...], tuple[Any, ...]], ...] = field(repr=False)  # columns, their encoders
    estimator: Any = field(repr=False)
    columns: tuple[Column, ...]
    classes: Classes  # in the order of answers; of two, the positive one last
    output: Any  # index into the estimator's output: one column, or all columns of three classes or more
    row_mode: Literal["dense", "sparse", "single"]  # how rows are passed to the estimator
    forest: bool
    compiled: CompiledBoosting | None = field(repr=False)
    compiled_forest: CompiledForest | None = field(repr=False)
    threads: ThreadpoolController = field(repr=False)
    members: tuple[Model, ...] = ()  # of an ensemble, whose prediction is their weighted mean
    weights: tuple[float, ...] = ()
    thresholds: GroupThresholds | None = None  # by group; they shift the scores of what the other fields describe

    @property
    def classifies(self) -> bool:
        return bool(self.classes)


@cache
def thread_pools() -> ThreadpoolController:
    """The thread pools of scikit-learn and numpy in this process: looking for them takes as long as a small fit."""
    import sklearn.utils.validation  # noqa: F401 (loads them)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def prepare(pipeline: Pipeline | Ensemble | GroupThresholds, *, is_compiled: bool = True) -> Model:
    """Prepare a fitted estimator for `predict`; compiled trees take time, and answer one row faster."""
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )

    from tasks.train.tabular.ensemble import Ensemble
    from tasks.train.tabular.group_thresholds import GroupThresholds

    if isinstance(pipeline, GroupThresholds):
        return replace(prepare(pipeline.pipeline, is_compiled=is_compiled), pipeline=pipeline, thresholds=pipeline)
    if isinstance(pipeline, Ensemble):
        members = tuple(prepare(part, is_compiled=is_compiled) for part in pipeline.pipelines)
        total = sum(pipeline.weights)
        weights = tuple(weight / total for weight in pipeline.weights)
        return replace(members[0], pipeline=pipeline, members=members, weights=weights)
    encoding, estimator = pipeline[0], pipeline[-1]
    columns = tuple(Column(**column) for column in pipeline.columns_)
    by_name = {column.name: column for column in columns}
    blocks = []
    for _, step, names in encoding.transformers_:
        if len(names) and step != "drop":
            steps = [part for _, part in step.steps] if hasattr(step, "steps") else [step]
            blocks.append((tuple(by_name[name] for name in names), tuple(map(fast_encoder, steps))))
    row_mode = _row_mode(estimator, [step for _, step, _ in encoding.transformers_])
    threads = thread_pools().select(user_api="openmp")
    classes, output = _classes_of(pipeline, estimator)
    forests = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
    is_forest = isinstance(estimator, forests)
    return Model(
        pipeline=pipeline,
        blocks=tuple(blocks),
        estimator=estimator,
        columns=columns,
        classes=classes,
        output=output,
        row_mode=row_mode,
        forest=is_forest,
        compiled=compile_estimator(getattr(estimator, "regressor_", estimator)) if is_compiled else None,
        compiled_forest=compile_forest(estimator) if is_forest and is_compiled else None,
        threads=threads,
    )


def _classes_of(pipeline: Pipeline, estimator: Any) -> tuple[Classes, Any]:
    if not hasattr(estimator, "predict_proba"):
        return (), 0
    known = tuple(map(normalize_label, estimator.classes_))
    if len(known) > 2:
        return known, slice(None)
    positive = getattr(pipeline, "positive_", known[-1])
    return tuple(sorted(known, key=lambda name: name == positive)), known.index(positive)


def predict(model: Model, values: Values, columns: Sequence[Column] | None = None) -> np.ndarray:
    """Score rows as float64: the probability of the second of two classes, or the regression's value, (rows,).

    Of three classes or more it is each one's probability, of shape (rows, classes).

    `values` is a DataFrame, or a mapping from each column's name to its values (lists or arrays), which is faster
    for one row. None, NaN and NA are missing values. A row's prediction does not depend on
    the other rows, to the last digit.

    Raises: DataError when a column is missing or holds values that the model can't take.
    """
    scores = _predict(model, values, columns)
    return model.thresholds.shift(scores, values) if model.thresholds else scores


def _predict(model: Model, values: Values, columns: Sequence[Column] | None) -> np.ndarray:
    """The scores without thresholds by group."""
    import numpy as np

    if model.members:
        parts = [predict(member, values, columns) for member in model.members]
        return np.asarray(sum(weight * part for weight, part in zip(model.weights, parts, strict=True)))
    if columns is not None and [(c.name, c.kind) for c in columns] != [(c.name, c.kind) for c in model.columns]:
        raise DataError(
            "The columns are not those that the model was trained on.",
            found=", ".join(f"{c.name} ({c.kind})" for c in columns),
            allowed=", ".join(f"{c.name} ({c.kind})" for c in model.columns),
            todo="Train again with the case's present features.",
        )
    _check_names(model, values)
    rows = len(values[model.columns[0].name])
    if rows == 0:
        return np.zeros((0, len(model.classes)) if len(model.classes) > 2 else 0)
    try:
        # setting the limit costs 0.02 ms; waking a second thread for every tree costs more, and far more on busy cores
        with model.threads.limit(limits=1) if rows <= SINGLE_THREAD_ROWS else nullcontext():
            if model.row_mode != "single" or rows == 1:
                return _score(model, values, rows)
            arrays = {c.name: np.asarray(values[c.name], dtype=object) for c in model.columns}
            predictions = [_score(model, {n: a[i : i + 1] for n, a in arrays.items()}, 1) for i in range(rows)]
    except (ValueError, TypeError) as error:
        raise DataError(
            "The model can't take these values.",
            where=f"{rows:,} rows of {', '.join(c.name for c in model.columns)}",
            found=str(error).split("\n")[0],
            todo="Check the values, or declare an encoder (an imputer for missing values) in the case's train section.",
        ) from error
    return np.concatenate(predictions)


def _score(model: Model, values: Values, rows: int) -> np.ndarray:
    import numpy as np

    parts = []
    for columns, steps in model.blocks:
        block: Any = column_block(values, columns, rows)
        for step in steps:
            block = step.transform(block)
        parts.append(block)
    if any(hasattr(part, "toarray") for part in parts) or model.row_mode == "sparse":
        import scipy.sparse

        matrix: Any = scipy.sparse.csr_matrix(scipy.sparse.hstack([scipy.sparse.csr_matrix(p) for p in parts]))
        if model.row_mode != "sparse" and not getattr(model.pipeline[0], "sparse_output_", False):
            matrix = matrix.toarray()
    else:
        matrix = parts[0] if len(parts) == 1 else np.hstack(parts)
    if rows <= DIRECT_FOREST_ROWS and model.forest:
        return _predict_forest(model, matrix)
    if model.compiled and model.compiled.takes(rows):
        predictions = model.compiled.predict(matrix)
        if model.classifies:
            return predictions[:, model.output]
        if hasattr(model.estimator, "transformer_"):  # of the target
            return model.estimator.transformer_.inverse_transform(predictions[:, None])[:, 0]
        return predictions
    if model.classifies:
        # softmax over the columns of one row alone sums in another order than over those of several rows
        alone = rows == 1 and len(model.classes) > 2 and model.row_mode == "dense"
        scores = model.estimator.predict_proba(np.vstack([matrix, matrix]) if alone else matrix)
        return scores[:rows, model.output].astype(np.float64)
    return np.asarray(model.estimator.predict(matrix), np.float64).reshape(-1)


def _predict_forest(model: Model, matrix: Any) -> np.ndarray:
    import numpy as np

    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    values = np.ascontiguousarray(dense, dtype=np.float32)
    if np.isinf(values).any():
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
    if model.compiled_forest and len(values) <= compiled.MAX_FOREST_ROWS:
        return model.compiled_forest.predict(values)[:, model.output]
    return predict_by_trees(model.estimator, values, model.output)


def column_block(values: Values, columns: Sequence[Column], rows: int) -> np.ndarray:
    """Columns of one kind as an array of shape (rows, columns): float64 with NaN, or object with text and NaN."""
    import numpy as np

    if columns[0].kind == "number":
        numbers = np.empty((rows, len(columns)))
        for position, column in enumerate(columns):
            numbers[:, position] = _numbers(values[column.name])
        return numbers
    texts = np.empty((rows, len(columns)), dtype=object)
    for position, column in enumerate(columns):
        texts[:, position] = _texts(values[column.name], column)
    return texts


def typed_frame(values: Values, columns: Sequence[Column], rows: int) -> pd.DataFrame:
    """The columns as a fitted pipeline takes them."""
    import pandas as pd

    return pd.DataFrame({column.name: column_block(values, [column], rows)[:, 0] for column in columns})


def _numbers(values: Any) -> np.ndarray:
    import numpy as np

    if hasattr(values, "to_numpy"):  # a pandas Series, perhaps of a nullable type
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(values, dtype=np.float64)


def _texts(values: Any, column: Column) -> Any:
    """A whole column at once where that is safe, which is seven times faster."""
    import numpy as np

    if len(values) > SINGLE_THREAD_ROWS:
        import pandas as pd

        codes, words = pd.factorize(np.asarray(values, dtype=object))  # a missing value has the code -1
        if pd.api.types.infer_dtype(words, skipna=True) in ("string", "empty"):
            return np.array([*(_text(word, column) for word in words), float("nan")], dtype=object)[codes]
    return [_text(value, column) for value in values]


def _text(value: Any, column: Column) -> Any:
    """Text without blanks around it. A missing value is always NaN: for scikit-learn None would be another category."""
    if isinstance(value, str):
        return value.strip() or float("nan")
    if value is None or type(value).__name__ == "NAType" or value != value:
        return float("nan")
    raise TypeError(f"column {column.name} takes text, got {value!r}")


def _check_names(model: Model, values: Values) -> None:
    lacking = [column.name for column in model.columns if column.name not in values]
    if lacking:
        raise DataError(
            "Columns that the model takes are missing.",
            found=f"without {', '.join(lacking)}",
            allowed=", ".join(column.name for column in model.columns),
            todo="Send every column; write a missing value as null.",
        )


def _row_mode(estimator: Any, encoders: list[Any]) -> Literal["dense", "sparse", "single"]:
    """How rows must be passed so that a row's prediction does not depend on the others, to the last digit.

    Trees use each row by itself. A dense product with coefficients goes to BLAS, whose order of
    summation depends on the number of rows; the sparse product sums row by row. Unknown estimators get single rows.
    """
    from sklearn.utils import get_tags

    from tasks.train.tabular.calibrated import calibrated_model

    by_row = (
        "sklearn.preprocessing.",
        "sklearn.impute._base",
        "sklearn.feature_selection.",
        "sklearn.feature_extraction.text",
        "tasks.train.tabular.encoders",
    )
    middle = getattr(estimator, "steps", [])[:-1]  # an imported pipeline may have steps after its encoding
    estimator = estimator[-1] if middle else estimator
    estimator = getattr(estimator, "regressor_", estimator)  # the transformation of its target goes value by value
    estimator = calibrated_model(estimator) or estimator  # so does a calibration
    family = type(estimator).__module__
    parts = [part for encoder in encoders for _, part in getattr(encoder, "steps", [("", encoder)])]
    parts += [part for _, part in middle]
    # after a vectorizer its product is a sparse one
    reduced = [after for part, after in pairwise(parts) if type(part).__name__ == "TfidfVectorizer"]
    parts = [part for part in parts if not (type(part).__name__ == "TruncatedSVD" and part in reduced)]
    if not all(isinstance(part, str) or type(part).__module__.startswith(by_row) for part in parts):
        return "single"
    if family.startswith(("sklearn.ensemble.", "sklearn.tree.", "sklearn.dummy")):
        return "dense"
    if family.startswith("sklearn.linear_model.") and hasattr(estimator, "coef_"):
        return "sparse" if get_tags(estimator).input_tags.sparse and not middle else "single"
    return "single"
