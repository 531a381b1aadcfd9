"""Store verdicts: in a folder named by the digest of their inputs, and in the candidate's run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError
from tasks.core.files import atomic_path, write_text
from tasks.core.mlflow import Tracking, log_batch, mlflow_client, mlflow_errors, run_status
from tasks.evaluate.criteria import decide
from tasks.evaluate.report import explain
from tasks.evaluate.results import Criterion, Verdict
from tasks.train.classes import Classes
from tasks.train.results import Candidate

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

SCORES = "scores.parquet"
EVIDENCE, PAIRED = "evidence.json", "paired.parquet"  # beside the scores: what the verdict is computed from
TABLES = ("criteria.json", "answers.json")  # files of a run that MLflow shows as tables


def find_verdict(folder: Path) -> Verdict | None:
    """The verdict in this folder; a folder that can't be read is cleared."""
    if not folder.exists():
        return None
    try:
        stored = Verdict.model_validate_json((folder / "verdict.json").read_bytes())
    except (OSError, ValidationError):
        stored = None
    if stored is None or not (folder / SCORES).is_file():
        rmtree(folder)
        return None
    return stored.model_copy(update={"scores": folder / SCORES})


def require_run(candidate: Candidate, tracking: Tracking) -> None:
    """Check that the verdict can be recorded, before hours are spent on it.

    Raises: DriftlineError when the candidate's run is gone.
    """
    if run_status(mlflow_client(tracking), candidate.run_id) is None:
        raise DriftlineError(
            "The candidate's run is gone, so its verdict can't be recorded.",
            where=tracking.uri.split("@")[-1],
            found=f"run {candidate.run_id} of {candidate.case}",
            todo="Train again: the same inputs give the same weights, and a new run.",
        )


@dataclass(frozen=True)
class Evaluation:
    """What a verdict is made of."""

    criteria: Sequence[Criterion]
    metrics: dict[str, Any]  # by table, as in Verdict
    logged: Mapping[str, float]  # metrics of the MLflow run, without their prefix
    scores: pd.DataFrame
    champion: str | None  # digest
    notes: Mapping[str, str] = field(default_factory=dict)  # texts by file name
    classes: Classes = ()
    data: str = ""  # the rows of each side
    evidence: str = ""  # JSON; empty: the verdict can't be computed again from its scores
    paired: pd.DataFrame | None = None  # scores of each side


def without_timing(criterion: Criterion) -> Criterion:
    """A criterion as it is sealed: a measured time differs between equal runs, and is recorded elsewhere."""
    return criterion if criterion.repeatable else criterion.model_copy(update={"observed": None, "note": ""})


def verdict_digest(criteria: Sequence[Criterion]) -> str:
    """Digest over the decision and the criteria that are no timings."""
    repeatable = [c.model_dump(mode="json", exclude={"repeatable"}) for c in criteria if c.repeatable]
    return digest_of({"decision": decide(criteria), "criteria": repeatable})


def store_verdict(candidate: Candidate, evaluation: Evaluation, folder: Path, tracking: Tracking) -> Verdict:
    """Decide, write the verdict with its scores into the folder, and log it to the candidate's run."""
    verdict = Verdict(
        decision=decide(evaluation.criteria),
        criteria=tuple(evaluation.criteria),
        metrics=evaluation.metrics,
        champion=evaluation.champion,
        classes=evaluation.classes,
        data=evaluation.data,
        scores=folder / SCORES,
        digest=verdict_digest(evaluation.criteria),
    )
    with atomic_path(folder) as work:
        work.mkdir(parents=True)
        evaluation.scores.to_parquet(work / SCORES, index=False)
        if evaluation.paired is not None:
            evaluation.paired.to_parquet(work / PAIRED, index=False)
        if evaluation.evidence:
            write_text(work / EVIDENCE, evaluation.evidence)
        (work / "verdict.json").write_text(verdict.model_dump_json(indent=2), encoding="utf-8")
        with mlflow_errors(tracking.uri):
            _log(mlflow_client(tracking), candidate, verdict, evaluation, work)
    return verdict


def _log(client: MlflowClient, candidate: Candidate, verdict: Verdict, evaluation: Evaluation, work: Path) -> None:
    """Log to the candidate's MLflow run; a repetition changes nothing but the files' times."""
    folder = work / "log" / "verdict"
    folder.mkdir(parents=True)
    rows = [[c.name, c.observed, c.required, c.passed, c.note] for c in verdict.criteria]
    table = {"columns": ["criterion", "observed", "required", "passed", "note"], "data": rows}
    texts = {
        "verdict.json": verdict.model_dump_json(indent=2),
        "verdict.md": explain(verdict),
        "criteria.json": json.dumps(table),
        **evaluation.notes,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    client.log_artifacts(candidate.run_id, str(work / "log"))
    rmtree(work / "log")
    tables = [{"path": f"verdict/{name}", "type": "table"} for name in texts if name in TABLES]
    log_batch(
        client,
        candidate.run_id,
        metrics={f"evaluate_{name}": value for name, value in evaluation.logged.items()}
        | {
            f"baseline.{side}.{name}": value
            for side, metrics in evaluation.metrics.get("baselines", {}).items()
            for name, value in metrics.items()
        },
        tags={
            "driftline.decision": verdict.decision,
            "driftline.verdict_digest": verdict.digest,
            "driftline.champion": verdict.champion or "none",
            "driftline.judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "mlflow.loggedArtifacts": json.dumps(tables),
        },
        timestamp_ms=client.get_run(candidate.run_id).info.start_time,
    )
