"""The classes of a classification, their order, and their encoding as numbers.

Metrics use numbers: the position of a class in its model's order. The second of two classes is the positive one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.core.errors import CaseError, DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tasks.train.config import Target

Class: TypeAlias = str | int
Classes: TypeAlias = tuple[Class, ...]  # empty: a regression

DEFAULT_CLASSES = (0, 1)  # responses and manifests do not name these
UNKNOWN_CLASS = -1  # encodes a class that the model does not know
DECISION_THRESHOLD = 0.5  # minimum score for the second of two classes
MAX_CLASSES = 100
TOLERANCE = 1e-12  # for responses of a service
MIN_CLASS_EXAMPLES = 5  # for training


def normalize_label(label: Any) -> Class:
    """A class as text or integer; true is 1."""
    return str(label) if isinstance(label, str) else int(label)


def infer_classes(values: pd.Series, target: Target, min_examples: int = 1) -> Classes:
    """The sorted classes of a target; the positive one of two is last.

    Raises: DataError when the values are not classes, or a class has too few examples; CaseError when target.positive
    is not one of two classes.
    """
    counts = values.value_counts()
    where = f"target {target.column}, {len(values):,} examples"
    valid = all(isinstance(label, str) or float(label).is_integer() for label in counts.index)
    if not valid or len(counts) > MAX_CLASSES:
        raise DataError(
            "The target of a classification must hold classes.",
            where=where,
            found=f"{len(counts):,} different values, such as {', '.join(map(str, counts.index[:5]))}",
            allowed=f"text or whole numbers, at most {MAX_CLASSES} different ones; empty while unknown",
            todo="Set target.task: regression, or convert it to classes in the SQL of features.examples.",
        )
    sizes = {normalize_label(label): int(count) for label, count in counts.items()}
    classes = tuple(sorted(sizes))
    few = [f"{name} ({sizes[name]})" for name in classes if sizes[name] < min_examples]
    if few and classes != DEFAULT_CLASSES:
        raise DataError(
            "Classes have too few training examples.",
            where=where,
            found=", ".join(few),
            allowed=f"at least {min_examples} of each class",
            todo="Join or leave out rare classes in the SQL of features.examples, or take more data.",
        )
    return _positive_last(classes, target)


def _positive_last(classes: Classes, target: Target) -> Classes:
    if target.positive is None or len(classes) < 2:  # the split refuses a single class
        return classes
    numeric, declared = not isinstance(classes[0], str), target.positive
    positive = int(declared) if numeric and isinstance(declared, bool) else declared
    if len(classes) > 2 or positive not in classes:
        todo = "Correct it, or leave it out."
        if isinstance(declared, bool) and not numeric:
            todo = 'Write it in quotes, as "Yes": YAML reads Yes and No as true and false.'
        if isinstance(declared, str) and numeric:
            todo = "DuckDB reads Yes and No of a CSV file as 1 and 0: name one of these, or convert them in the SQL "
            todo += f"of features.examples, as in if({target.column}, 'Yes', 'No')."
        raise CaseError(
            "target.positive is not one of two classes.",
            where="target.positive",
            found=f"{declared!r}, classes {', '.join(map(repr, classes[:10]))}",
            allowed="one of the classes, if they are two",
            todo=todo,
        )
    return (*(name for name in classes if name != positive), positive)


def target_labels(values: pd.Series) -> np.ndarray:
    """A target without missing values for an estimator: text or integers."""
    return values.to_numpy(str if isinstance(values.iloc[0], str) else "int64")


def encode_target(values: pd.Series, classes: Sequence[Class]) -> np.ndarray:
    """A target as float64: a class as its position or UNKNOWN_CLASS, a regression's value unchanged; NaN is missing."""
    import numpy as np
    import pandas as pd

    if not classes:
        return values.to_numpy("float64", na_value=np.nan)
    labels = values if isinstance(classes[0], str) else pd.to_numeric(values, errors="coerce").astype("float64")
    return np.where(values.isna(), np.nan, pd.Index(classes).get_indexer(pd.Index(labels)))


def predicted_classes(predictions: np.ndarray) -> np.ndarray:
    """The predicted class of each row, by number."""
    return (predictions >= DECISION_THRESHOLD).astype(int) if predictions.ndim == 1 else predictions.argmax(axis=1)


def class_scores(prediction: Any, classes: Sequence[Class]) -> dict[str, float]:
    """The probability of each class, from that of the second of two or from a list."""
    scores = prediction if len(classes) > 2 else (1 - prediction, prediction)
    return {str(name): float(score) for name, score in zip(classes, scores, strict=True)}


def matches_label(response: Mapping[str, Any], prediction: Any) -> bool:
    """Whether a service's response for a row equals the model's prediction."""
    import numpy as np

    scores = list(response.get("scores", {}).values())
    value = scores if len(scores) > 2 else scores[-1] if scores else response.get("score", response["prediction"])
    return np.shape(value) == np.shape(prediction) and np.allclose(value, prediction, rtol=TOLERANCE, atol=TOLERANCE)


def score_columns(classes: Sequence[Class]) -> list[str]:
    return [f"score_{name}" for name in classes]


def prediction_columns(predictions: np.ndarray, classes: Sequence[Class]) -> dict[str, np.ndarray]:
    """Predictions as table columns: `prediction`, and for three classes or more a `score_CLASS` for each."""
    import numpy as np

    if predictions.ndim == 1:
        return {"prediction": predictions}
    names = np.array([str(name) for name in classes], dtype=object)
    return {
        "prediction": names[predicted_classes(predictions)],
        **dict(zip(score_columns(classes), predictions.T, strict=True)),
    }


def predictions_in(table: pd.DataFrame, classes: Sequence[Class]) -> np.ndarray:
    """The predictions in a table with such columns."""
    return table["prediction" if len(classes) <= 2 else score_columns(classes)].to_numpy("float64")


def align_classes(
    values: pd.Series, first: np.ndarray, first_classes: Classes, second: np.ndarray, second_classes: Classes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A target and two models' predictions over the classes of both; an unknown class has probability 0."""
    if first_classes == second_classes:
        return encode_target(values, first_classes), first, second
    union = (*first_classes, *(name for name in second_classes if name not in first_classes))
    aligned = _expand(first, first_classes, union), _expand(second, second_classes, union)
    return encode_target(values, union), *aligned


def _expand(predictions: np.ndarray, classes: Classes, union: Classes) -> np.ndarray:
    import numpy as np

    scores = np.stack([1 - predictions, predictions], axis=1) if predictions.ndim == 1 else predictions
    expanded = np.zeros((len(scores), len(union)))
    expanded[:, [union.index(name) for name in classes]] = scores
    return expanded
