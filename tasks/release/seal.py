"""The sealed manifest: what a release is made of, under one digest that anybody can compute again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.evaluate.results import Criterion, Verdict
from tasks.foundation.config import digest_of
from tasks.foundation.errors import DriftlineError, GateFailed
from tasks.foundation.files import file_digest, whole, write_text
from tasks.train.config import Target
from tasks.train.results import Candidate

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
MODEL = "model.skops"
SCORES = "scores.parquet"
GOLDEN = "golden.json"
LINEAGE = ("commit", "dirty", "lock_digest", "case_digest")


def seal(
    candidate: Candidate,
    verdict: Verdict,
    target: Target,
    kind: str,
    lineage: Mapping[str, str],
    state: Path,
    *,
    snapshot_pointer: str = "",
    timings: Mapping[str, float] | None = None,
) -> Path:
    """Write `<state>/releases/<case>/<digest12>/` and give it; the same inputs give the same digest and folder.

    `lineage` holds commit, dirty ("true" or "false"), lock_digest and case_digest. `snapshot_pointer` is the text of
    the snapshot's .dvc file. Raises: GateFailed when the verdict is not to promote.
    """
    if verdict.decision != "promote":
        raise GateFailed(
            f"The candidate of {candidate.case} is not released.",
            found=f"verdict: {verdict.decision}",
            allowed="verdict: promote",
            todo="See the verdict's criteria; change the case, or wait for more data.",
        )
    if lacking := [name for name in LINEAGE if not lineage.get(name)]:
        raise DriftlineError(
            "The release can't be sealed: its lineage is incomplete.", found=f"no {', '.join(lacking)}"
        )
    if (weights := file_digest(candidate.folder / MODEL)) != candidate.weights_digest:
        raise _differs(candidate.folder / MODEL, weights, candidate.weights_digest)
    golden = _golden(candidate, verdict.scores)
    sealed = {
        "format": 1,
        "case": candidate.case,
        "kind": kind,
        "as_of": candidate.as_of.astimezone(UTC).isoformat(),
        "commit": lineage["commit"],
        "dirty": lineage["dirty"] == "true",
        "lock": lineage["lock_digest"],
        "config": lineage["case_digest"],
        "data": candidate.data_digest,
        "definitions": candidate.definitions_digest,
        "weights": candidate.weights_digest,
        "target": target.model_dump(mode="json"),
        **_columns(candidate),
        "verdict": {
            "decision": verdict.decision,
            "champion": verdict.champion,
            "digest": verdict.digest,
            "criteria": [_repeatable(criterion) for criterion in verdict.criteria],
        },
        "files": {
            MODEL: weights,
            SCORES: file_digest(verdict.scores),
            GOLDEN: digest_of(golden),
        },
    }
    digest = digest_of(sealed)
    folder = release_folder(state, candidate.case, digest)
    if not folder.exists():
        recorded = {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": candidate.run_id,
            "versions": {name: version(name) for name in ("mlflow", "bentoml", "scikit-learn", "skops")},
            "rows": {"train": candidate.train_rows, "holdout": candidate.holdout_rows},
            "metrics": verdict.metrics,
            "observed": {c.name: {"value": c.observed, "note": c.note} for c in verdict.criteria},
            "timings": dict(timings or {}),
            "lineage": {name: value for name, value in sorted(lineage.items()) if name not in LINEAGE},
            "snapshot": snapshot_pointer,
        }
        with whole(folder) as temporary:
            temporary.mkdir()
            shutil.copyfile(candidate.folder / MODEL, temporary / MODEL)
            shutil.copyfile(verdict.scores, temporary / SCORES)
            if (importance := candidate.folder / "importance.json").is_file():
                shutil.copyfile(importance, temporary / importance.name)
            write_text(temporary / GOLDEN, json.dumps(golden, indent=1, ensure_ascii=False))
            manifest = {"digest": digest, "sealed": sealed, "recorded": recorded}
            write_text(temporary / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False))
    verify(folder)
    return folder


def release_folder(state: Path, case: str, digest: str) -> Path:
    return state / "releases" / case / digest[:12]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a release's manifest.

    Raises: DriftlineError when there is none, or it is not JSON.
    """
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DriftlineError(
            "The release's manifest can't be read.", where=str(folder / MANIFEST), found=str(error)
        ) from error


def verify(folder: Path) -> dict[str, Any]:
    """Compute every digest of a release again, compare, and give its manifest.

    Raises: DriftlineError naming the first file or part that differs by a byte.
    """
    manifest = read_manifest(folder)
    sealed = manifest["sealed"]
    if (found := digest_of(sealed)) != manifest["digest"] or not found.startswith(folder.name):
        raise _differs(folder / MANIFEST, found, manifest["digest"])
    for name, expected in sealed["files"].items():
        path = folder / name
        if not path.is_file():
            raise _differs(path, "no such file", expected)
        found = digest_of(json.loads(path.read_bytes())) if name == GOLDEN else file_digest(path)
        if found != expected:
            raise _differs(path, found, expected)
    return manifest


def _differs(path: Path, found: str, expected: str) -> DriftlineError:
    return DriftlineError(
        "The release is not what was sealed: a digest differs.",
        where=str(path),
        found=found,
        allowed=expected,
        todo="Don't serve it. Delete its folder and run the release again, or take the files from a copy.",
    )


def _repeatable(criterion: Criterion) -> dict[str, Any]:
    """A criterion as it is sealed; what a clock observed differs on every run and is only recorded."""
    part = {"name": criterion.name, "required": criterion.required, "passed": criterion.passed}
    return {**part, "observed": criterion.observed} if criterion.repeatable else part


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


def _kind(of: pa.DataType) -> str:
    import pyarrow as pa

    return "integer" if pa.types.is_integer(of) else "number" if pa.types.is_floating(of) else "text"


def _golden(candidate: Candidate, scores: Path, count: int = 24) -> list[dict[str, Any]]:
    """Some scored examples of the hold-out, spread over it, that whoever serves this release must answer alike."""
    import pyarrow.parquet as pq

    table = pq.read_table(scores)
    if table.num_rows == 0:
        raise DriftlineError("The hold-out has no scored example.", where=str(scores), todo="Run the training again.")
    picked = sorted({round(i * (table.num_rows - 1) / max(1, count - 1)) for i in range(count)})
    rows = table.take(picked).to_pylist()
    return [
        {
            "example_id": str(row["example_id"]),
            "features": {column.name: _plain(row[column.name], column.kind) for column in candidate.columns},
            "prediction": float(row["prediction"]),
        }
        for row in rows
    ]


def _plain(value: Any, kind: str) -> Any:
    """A feature's value as JSON has it; NaN is a missing value."""
    if value is None or value != value:
        return None
    return str(value) if kind == "text" else float(value)
