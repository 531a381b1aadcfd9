"""Judge a candidate on its hold-out against the case's gates and the champion. What can't be computed fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.evaluate.config import Evaluate
from tasks.evaluate.criteria import (
    alone_criterion,
    bound_criterion,
    champion_criterion,
    decide,
    slice_criterion,
    speed_criterion,
)
from tasks.evaluate.metrics import by_month, by_value, measure, metrics_of
from tasks.evaluate.report import explain
from tasks.evaluate.results import Criterion, Verdict
from tasks.foundation.config import digest_of
from tasks.foundation.errors import CaseError, DataError, DriftlineError
from tasks.foundation.files import file_digest, whole
from tasks.foundation.tracking import Tracking, answering, client_of, log, status_of
from tasks.train.config import Split, Target
from tasks.train.model_file import Model, load, predict
from tasks.train.results import Candidate
from tasks.train.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["check_gates", "explain", "judge"]

ALONE = 50  # rows that are also scored one at a time


def check_gates(config: Evaluate, task: str, columns: Sequence[str] | None = None) -> None:
    """Check that metrics and losses fit the task, and, given the frame's columns, that slices are among them.

    Raises: CaseError.
    """
    fitting = metrics_of(task)
    named = [(f"evaluate.bounds[{i}].metric", bound.metric) for i, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate.metric", config.slice_gate.metric)] if config.slice_gate else []
    for where, metric in named:
        if metric not in fitting:
            raise CaseError(
                f"{metric} is no metric of a {task}.",
                where=where,
                found=metric,
                allowed=", ".join(fitting),
                todo="Name one of these, or correct target.task.",
            )
    losses = ("brier", "log_loss") if task == "classification" else ("absolute_error", "squared_error")
    if config.champion_gate.loss not in losses:
        raise CaseError(
            f"{config.champion_gate.loss} is no loss of a {task}.",
            where="evaluate.champion_gate.loss",
            found=config.champion_gate.loss,
            allowed=", ".join(losses),
            todo="Name one of these, or correct target.task.",
        )
    if config.slice_gate and not config.slices:
        raise CaseError(
            "A slice gate without slices would never be computed.",
            where="evaluate.slice_gate",
            found="evaluate.slices is empty",
            todo="Name columns under evaluate.slices, or remove the slice gate.",
        )
    for column in config.slices:
        if columns is not None and column not in columns:
            raise CaseError(
                f"There is no column {column} to slice by.",
                where="evaluate.slices",
                found=column,
                allowed=", ".join(columns),
                todo="Name a column that features.examples gives.",
            )


def judge(
    candidate: Candidate,
    target: Target,
    split: Split,
    config: Evaluate,
    state: Path,
    champion_model: Path | None = None,
    champion_digest: str | None = None,
    threads: int = 1,
    tracking: Tracking | None = None,
) -> Verdict:
    """Score the hold-out, hold it against every gate, log the verdict to the candidate's run, and give it.

    The same question asked again gives the stored verdict. `threads` speeds up scoring and changes no answer.

    Raises: DataError when the candidate's own model or hold-out can't be read; DriftlineError when its run is gone.
    """
    champion_weights = file_digest(champion_model) if champion_model and champion_model.is_file() else None
    key = digest_of(
        {
            "candidate": [candidate.run_id, candidate.weights_digest, candidate.data_digest],
            "definitions": candidate.definitions_digest,
            "rows": [candidate.train_rows, candidate.holdout_rows],
            "target": target.digest,
            "split": split.digest,
            "gates": config.digest,
            "code": [file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py"))],
            "champion": [champion_digest, champion_weights, champion_model is not None],
        }
    )
    folder = state / "verdicts" / candidate.case / key[:16]
    stored = _judged_before(folder)
    if stored is not None:
        return stored

    place = tracking or Tracking.under(state)
    client = client_of(place)
    if status_of(client, candidate.run_id) is None:
        raise DriftlineError(
            "The candidate's run is gone, so its verdict can't be recorded.",
            where=place.uri.split("@")[-1],
            found=f"run {candidate.run_id} of {candidate.case}",
            todo="Train again: the same inputs give the same weights, and a new run.",
        )
    with _limited(threads):
        scored, alone = score_holdout(candidate, target, split)
        y, p = scored[target.column].to_numpy("float64"), scored["prediction"].to_numpy()
        other, problem = _champion_scores(scored, champion_model, champion_digest)
    metrics = tables_of(scored, target, config.slices)
    criteria = [bound_criterion(bound, metrics["overall"]) for bound in config.bounds]
    if config.slice_gate:
        found = metrics["by_slice"]
        criteria += [slice_criterion(config.slice_gate, c, metrics["overall"], found.get(c)) for c in config.slices]
    criteria.append(champion_criterion(config.champion_gate, y, p, other, problem))
    criteria.append(alone_criterion(alone["difference"]))
    if config.ms_per_row is not None:
        criteria.append(speed_criterion(config.ms_per_row, alone["ms_per_row"]))
    decision = decide(criteria)
    verdict = Verdict(
        decision=decision,
        criteria=tuple(criteria),
        metrics=metrics,
        champion=champion_digest,
        scores=folder / "scores.parquet",
        digest=digest_of({"decision": decision, "criteria": [_repeatable(c) for c in criteria if c.repeatable]}),
    )
    with whole(folder) as work:
        work.mkdir(parents=True)
        scored.to_parquet(work / "scores.parquet", index=False)
        (work / "verdict.json").write_text(verdict.model_dump_json(indent=2), encoding="utf-8")
        with answering(place.uri):
            _log_verdict(client, candidate, verdict, alone["ms_per_row"], work)
    return verdict


def score_holdout(candidate: Candidate, target: Target, split: Split) -> tuple[pd.DataFrame, dict[str, float]]:
    """Give the hold-out with its predictions; and of a few rows scored alone, the milliseconds and the difference.

    Raises: DataError.
    """
    import numpy as np
    import pyarrow.parquet as pq

    frame = pq.read_table(candidate.frame)
    # the split needs three columns; making Python text of all the rows that were trained on would take longest
    deciding = frame.select(["example_id", "event_timestamp", target.column]).to_pandas()
    _, held = split_frame(deciding[deciding[target.column].notna()], split)
    model = load(candidate.folder / "model.skops")
    scored = frame.take(held.index.to_numpy()).to_pandas()
    scored["prediction"] = predict(model, scored, candidate.columns)
    some = np.unique(np.linspace(0, len(scored) - 1, min(ALONE, len(scored))).astype(int))
    seconds, answers = _score_alone(model, scored, some)
    difference = float(np.max(np.abs(answers - scored["prediction"].to_numpy()[some])))
    return scored, {"ms_per_row": 1000 * median(seconds), "difference": difference}


def tables_of(scored: pd.DataFrame, target: Target, slices: Sequence[str]) -> dict[str, Any]:
    """Metrics overall, by month and by slice; each with its number of rows."""
    y, p = scored[target.column].to_numpy("float64"), scored["prediction"].to_numpy()
    return {
        "overall": {"rows": len(scored), **measure(y, p, target.task)},
        "by_month": by_month(scored["event_timestamp"], y, p, target.task),
        "by_slice": {c: by_value(scored[c], y, p, target.task) for c in slices if c in scored},
    }


def _score_alone(model: Model, scored: pd.DataFrame, some: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Score rows one at a time, as a service does: seconds and answers."""
    import numpy as np

    values = {column.name: scored[column.name].to_numpy(object)[some].tolist() for column in model.columns}
    seconds, answers = [], []
    for i in range(len(some)):
        row = {name: column[i : i + 1] for name, column in values.items()}
        started = perf_counter()
        answers.append(predict(model, row))
        seconds.append(perf_counter() - started)
    return seconds, np.concatenate(answers)


def _champion_scores(scored: pd.DataFrame, model: Path | None, digest: str | None) -> tuple[np.ndarray | None, str]:
    """The champion's predictions for the same rows, or why there are none; no champion at all is no problem."""
    if model is None and digest is None:
        return None, ""
    if model is None:
        return None, f"champion {str(digest)[:12]} has no model file here"
    try:
        return predict(load(model), scored), ""
    except DataError as error:
        return None, f"the champion can't score these rows: {error.what} {error.found}"


def _limited(threads: int) -> Any:
    import sklearn.ensemble  # noqa: F401  # a limit holds for libraries that are loaded already
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)


def _judged_before(folder: Path) -> Verdict | None:
    """The verdict in this folder; a folder that can't be read is cleared."""
    if not folder.exists():
        return None
    try:
        stored = Verdict.model_validate_json((folder / "verdict.json").read_bytes())
    except (OSError, ValidationError):
        stored = None
    if stored is None or not (folder / "scores.parquet").is_file():
        rmtree(folder)
        return None
    return stored.model_copy(update={"scores": folder / "scores.parquet"})


def _repeatable(criterion: Criterion) -> dict[str, Any]:
    return criterion.model_dump(mode="json", exclude={"repeatable"})


def _log_verdict(client: Any, candidate: Candidate, verdict: Verdict, ms: float, work: Path) -> None:
    """Tell the candidate's MLflow run; a second time changes nothing but the files' times."""
    folder = work / "log" / "verdict"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(verdict.model_dump_json(indent=2), encoding="utf-8")
    (folder / "verdict.md").write_text(explain(verdict), encoding="utf-8")
    rows = [[c.name, c.observed, c.required, c.passed, c.note] for c in verdict.criteria]
    table = {"columns": ["criterion", "observed", "required", "passed", "note"], "data": rows}
    (folder / "criteria.json").write_text(json.dumps(table), encoding="utf-8")
    client.log_artifacts(candidate.run_id, str(work / "log"))
    rmtree(work / "log")
    log(
        client,
        candidate.run_id,
        metrics={f"evaluate_{name}": value for name, value in verdict.metrics["overall"].items()}
        | {"evaluate_ms_per_row": ms},
        tags={
            "driftline.decision": verdict.decision,
            "driftline.verdict_digest": verdict.digest,
            "driftline.champion": verdict.champion or "none",
            "driftline.judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "mlflow.loggedArtifacts": json.dumps([{"path": "verdict/criteria.json", "type": "table"}]),
        },
        at=client.get_run(candidate.run_id).info.start_time,
    )
