"""The parts of a tabular release."""

from __future__ import annotations

from typing import Any

from tasks.core.errors import DriftlineError
from tasks.core.files import file_digest
from tasks.data.results import Snapshot
from tasks.evaluate.results import Verdict
from tasks.guard.sealed_files import FOLDER
from tasks.guard.tables import TABLES, describe
from tasks.release.request_schema import request_schema, source_fields
from tasks.release.results import SealContext
from tasks.release.seal import ReleaseParts, digest_mismatch
from tasks.train.classes import DEFAULT_CLASSES, predictions_in
from tasks.train.config import Target
from tasks.train.results import Candidate

MODEL = "model.skops"
PACKAGES = ("mlflow", "bentoml", "scikit-learn", "skops", "treelite")


def tabular_parts(
    candidate: Candidate, verdict: Verdict, target: Target, context: SealContext | None = None
) -> ReleaseParts:
    """The model file, the rows that it takes, and golden examples.

    Raises: DriftlineError when the model file is not the one that was trained.
    """
    from tasks.train.tabular.model_file import load

    path = candidate.folder / MODEL
    if (found := file_digest(path)) != candidate.weights_digest:
        raise digest_mismatch(path, found, candidate.weights_digest)
    return ReleaseParts(
        kind="tabular",
        sealed={
            "target": _target(target, verdict, context.snapshot if context else None),
            **request_schema(candidate, load(path), context.snapshot if context else None),
            "missing": list(context.missing if context else ("",)),
        },
        golden=_golden(candidate, verdict),
        files={MODEL: path, **_tables(candidate, context)},
        packages=PACKAGES,
    )


def _tables(candidate: Candidate, context: SealContext | None) -> dict[str, str]:
    """What the guardrails for tables need of the training data."""
    import pyarrow.parquet as pq

    rules = context.guard.guardrails.tables if context else ()
    if not rules:
        return {}
    table = pq.read_table(candidate.frame, columns=[column.name for column in candidate.columns])
    return {f"{FOLDER}/{TABLES}": describe(table, rules)}


def _target(target: Target, verdict: Verdict, snapshot: Snapshot | None) -> dict[str, Any]:
    """The declared target, its classes unless they are 0 and 1, and whether these are false and true in the source."""
    import pyarrow as pa

    sealed = target.model_dump(mode="json", exclude_none=True)
    if verdict.classes not in ((), DEFAULT_CLASSES):
        return {**sealed, "classes": list(verdict.classes)}
    of_source = [field.type for field in source_fields(snapshot) if field.name == target.column]
    is_boolean = bool(verdict.classes) and of_source == [pa.bool_()]
    return {**sealed, "boolean": True} if is_boolean else sealed


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
