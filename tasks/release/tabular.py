"""The parts of a tabular release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.errors import DriftlineError
from tasks.core.files import file_digest
from tasks.evaluate.results import Verdict
from tasks.release.seal import ReleaseParts, digest_mismatch
from tasks.train.classes import DEFAULT_CLASSES, predictions_in
from tasks.train.config import Target
from tasks.train.results import Candidate

if TYPE_CHECKING:
    import pyarrow as pa

MODEL = "model.skops"
PACKAGES = ("mlflow", "bentoml", "scikit-learn", "skops")


def tabular_parts(candidate: Candidate, verdict: Verdict, target: Target) -> ReleaseParts:
    """The model file, the columns that it takes, and golden examples.

    Raises: DriftlineError when the model file is not the one that was trained.
    """
    path = candidate.folder / MODEL
    if (found := file_digest(path)) != candidate.weights_digest:
        raise digest_mismatch(path, found, candidate.weights_digest)
    return ReleaseParts(
        kind="tabular",
        sealed={"target": _target(target, verdict), **_columns(candidate)},
        golden=_golden(candidate, verdict),
        files={MODEL: path},
        packages=PACKAGES,
    )


def _target(target: Target, verdict: Verdict) -> dict[str, Any]:
    """The declared target, and its classes unless they are 0 and 1."""
    named = {"classes": list(verdict.classes)} if verdict.classes not in ((), DEFAULT_CLASSES) else {}
    return {**target.model_dump(mode="json", exclude_none=True), **named}


def _columns(candidate: Candidate) -> dict[str, Any]:
    """The features with whether they may be missing, and the join keys with their kind, as the frame shows them."""
    import pyarrow.parquet as pq

    names = [column.name for column in candidate.columns]
    keys = sorted({key for column in candidate.columns for key in column.entities})
    table = pq.read_table(candidate.frame, columns=[*names, *(key for key in keys if key not in names)])
    columns = [
        {**column.model_dump(mode="json"), "nullable": column.origin != "request" or _has_missing(table[column.name])}
        for column in candidate.columns
    ]
    return {"columns": columns, "entities": {key: _kind(table.schema.field(key).type) for key in keys}}


def _has_missing(values: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return values.null_count > 0 or (pa.types.is_floating(values.type) and bool(pc.any(pc.is_nan(values)).as_py()))


def _kind(dtype: pa.DataType) -> str:
    import pyarrow as pa

    return "integer" if pa.types.is_integer(dtype) else "number" if pa.types.is_floating(dtype) else "text"


def _golden(candidate: Candidate, verdict: Verdict, count: int = 24) -> list[dict[str, Any]]:
    """Scored examples, spread over the hold-out; a server of the release must give equal predictions."""
    import pyarrow.parquet as pq

    table = pq.read_table(verdict.scores)
    if table.num_rows == 0:
        raise DriftlineError(
            "The hold-out has no scored example.", where=str(verdict.scores), todo="Run the training again."
        )
    picked = sorted({round(i * (table.num_rows - 1) / max(1, count - 1)) for i in range(count)})
    sample = table.take(picked)
    predictions = predictions_in(sample.to_pandas(), verdict.classes).tolist()
    return [
        {
            "example_id": str(row["example_id"]),
            "features": {column.name: _json_value(row[column.name], column.kind) for column in candidate.columns},
            "prediction": prediction,
        }
        for row, prediction in zip(sample.to_pylist(), predictions, strict=True)
    ]


def _json_value(value: Any, kind: str) -> Any:
    """A feature's value for JSON; NaN is a missing value."""
    if value is None or value != value:
        return None
    return str(value) if kind == "text" else float(value)
