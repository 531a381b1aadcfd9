"""The answers beside the rows of a file, by the file's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.train.classes import DECISION_THRESHOLD, DEFAULT_CLASSES, Classes, predicted_classes, score_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def answer_columns(
    predictions: np.ndarray, good: np.ndarray, classes: Classes, *, is_boolean: bool
) -> dict[str, pa.Array]:
    """Prediction, and of a classification score and score_CLASS; null where a row is not good.

    predictions: of the good rows. is_boolean: the classes 0 and 1 are false and true in the file.
    """
    import numpy as np
    import pyarrow as pa

    number = pa.float64()
    columns: dict[str, tuple[Any, pa.DataType]] = {"prediction": (predictions, number)}
    if classes == DEFAULT_CLASSES:
        chosen, kind = predictions >= DECISION_THRESHOLD, pa.bool_() if is_boolean else pa.int64()
        columns = {"prediction": (chosen, kind), "score": (predictions, number)}
    elif classes:
        chosen = predicted_classes(predictions)
        shares = predictions if len(classes) > 2 else np.stack([1 - predictions, predictions], axis=1)
        kind = pa.string() if isinstance(classes[0], str) else pa.int64()
        shares = shares.reshape(-1, len(classes))
        columns = {
            "prediction": (np.array(classes, dtype=object)[chosen], kind),
            "score": (shares[np.arange(len(chosen)), chosen], number),
            **{name: (shares[:, place], number) for place, name in enumerate(score_columns(classes))},
        }
    return {name: _spread(values, good, kind) for name, (values, kind) in columns.items()}


def _spread(values: Any, good: np.ndarray, kind: pa.DataType) -> pa.Array:
    """The values of the good rows at their places among all, which are null elsewhere."""
    import numpy as np
    import pyarrow as pa

    every = np.full(len(good), None, dtype=object)
    every[good] = values
    return pa.array(every, pa.bool_() if pa.types.is_boolean(kind) else None).cast(kind)
