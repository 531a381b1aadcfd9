"""The classes of a classification: which they are, in which order, and how they become numbers and names again.

All metrics see numbers: the place of a class in its model's order. Of two classes the second is the positive one.
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
Classes: TypeAlias = tuple[Class, ...]  # none: a regression

PLAIN = (0, 1)  # say no more than a number does, so nothing names them
OTHER = -1  # the number of a class that a model does not know
CERTAIN = 0.5  # the score from which on the second of two classes is predicted
MOST = 100
CLOSE = 1e-12  # what a service says may be off by so much
FEWEST = 5  # examples of a class to learn from


def label_of(label: Any) -> Class:
    """A class as JSON has it: text, or a whole number; true is 1."""
    return str(label) if isinstance(label, str) else int(label)


def classes_in(values: pd.Series, target: Target, fewest: int = 1) -> Classes:
    """The classes that a target has, in order; the positive one of two last.

    Raises: DataError when these are no classes, or one has fewer examples; CaseError when target.positive is none.
    """
    counts = values.value_counts()
    where = f"target {target.column}, {len(values):,} examples"
    whole = all(isinstance(label, str) or float(label).is_integer() for label in counts.index)
    if not whole or len(counts) > MOST:
        raise DataError(
            "The target of a classification must hold classes.",
            where=where,
            found=f"{len(counts):,} different values, such as {', '.join(map(str, counts.index[:5]))}",
            allowed=f"text or whole numbers, at most {MOST} different ones; empty while unknown",
            todo="Set target.task: regression, or make classes of it in the SQL of features.examples.",
        )
    found = {label_of(label): int(count) for label, count in counts.items()}
    classes = tuple(sorted(found))
    few = [f"{name} ({found[name]})" for name in classes if found[name] < fewest]
    if few and classes != PLAIN:
        raise DataError(
            "Classes have too few examples to learn from.",
            where=f"{where} to learn from",
            found=", ".join(few),
            allowed=f"at least {fewest} of each class",
            todo="Join or leave out rare classes in the SQL of features.examples, or take more data.",
        )
    return _positive_last(classes, target)


def _positive_last(classes: Classes, target: Target) -> Classes:
    if target.positive is None or len(classes) < 2:  # one class is for the split to refuse
        return classes
    numbers, asked = not isinstance(classes[0], str), target.positive
    positive = int(asked) if numbers and isinstance(asked, bool) else asked
    if len(classes) > 2 or positive not in classes:
        todo = "Correct it, or leave it out."
        if isinstance(asked, bool) and not numbers:
            todo = 'Write it in quotes, as "Yes": YAML reads Yes and No as true and false.'
        if isinstance(asked, str) and numbers:
            todo = (
                "DuckDB reads Yes and No of a CSV file as 1 and 0: name one of these, or make words of them in the SQL "
            )
            todo += f"of features.examples, as in if({target.column}, 'Yes', 'No')."
        raise CaseError(
            "target.positive is not one of two classes.",
            where="target.positive",
            found=f"{asked!r}, classes {', '.join(map(repr, classes[:10]))}",
            allowed="one of the classes, if they are two",
            todo=todo,
        )
    return (*(name for name in classes if name != positive), positive)


def labels_of(values: pd.Series) -> np.ndarray:
    """A target without gaps as an estimator learns it: text or whole numbers."""
    return values.to_numpy(str if isinstance(values.iloc[0], str) else "int64")


def numbers_of(values: pd.Series, classes: Sequence[Class]) -> np.ndarray:
    """A target as float64: a class by its place, OTHER if it is none of them; a regression's as it is; NaN unknown."""
    import numpy as np
    import pandas as pd

    if not classes:
        return values.to_numpy("float64", na_value=np.nan)
    labels = values if isinstance(classes[0], str) else pd.to_numeric(values, errors="coerce").astype("float64")
    return np.where(values.isna(), np.nan, pd.Index(classes).get_indexer(pd.Index(labels)))


def predicted_in(answers: np.ndarray) -> np.ndarray:
    """The class that each row is given, by number."""
    return (answers >= CERTAIN).astype(int) if answers.ndim == 1 else answers.argmax(axis=1)


def scores_of(answer: Any, classes: Sequence[Class]) -> dict[str, float]:
    """Each class's probability in an answer of a model: that of the second of two, or a list."""
    every = answer if len(classes) > 2 else (1 - answer, answer)
    return {str(name): float(score) for name, score in zip(classes, every, strict=True)}


def matches_label(given: Mapping[str, Any], answer: Any) -> bool:
    """Whether what a service said of a row is what the model answers."""
    import numpy as np

    scores = list(given.get("scores", {}).values())
    told = scores if len(scores) > 2 else scores[-1] if scores else given.get("score", given["prediction"])
    return np.shape(told) == np.shape(answer) and np.allclose(told, answer, rtol=CLOSE, atol=CLOSE)


def score_columns(classes: Sequence[Class]) -> list[str]:
    return [f"score_{name}" for name in classes]


def columns_of(answers: np.ndarray, classes: Sequence[Class]) -> dict[str, np.ndarray]:
    """Answers as columns of a table: `prediction`; of three classes or more its class, and `score_CLASS` for each."""
    import numpy as np

    if answers.ndim == 1:
        return {"prediction": answers}
    names = np.array([str(name) for name in classes], dtype=object)
    return {"prediction": names[predicted_in(answers)], **dict(zip(score_columns(classes), answers.T, strict=True))}


def answers_in(table: pd.DataFrame, classes: Sequence[Class]) -> np.ndarray:
    """Such columns as answers again."""
    return table["prediction" if len(classes) <= 2 else score_columns(classes)].to_numpy("float64")


def align_classes(
    values: pd.Series, ours: np.ndarray, our_classes: Classes, theirs: np.ndarray, their_classes: Classes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A target and two models' answers over the classes of both; what a model does not know has no probability."""
    if our_classes == their_classes:
        return numbers_of(values, our_classes), ours, theirs
    every = (*our_classes, *(name for name in their_classes if name not in our_classes))
    sides = _spread(ours, our_classes, every), _spread(theirs, their_classes, every)
    return numbers_of(values, every), *sides


def _spread(answers: np.ndarray, classes: Classes, onto: Classes) -> np.ndarray:
    import numpy as np

    every = np.stack([1 - answers, answers], axis=1) if answers.ndim == 1 else answers
    spread = np.zeros((len(every), len(onto)))
    spread[:, [onto.index(name) for name in classes]] = every
    return spread
