"""Answers in MLflow's GenAI evaluation view: a trace an example, with the assessment of each scorer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.mlflow import Tracking, log_batch, mlflow_client, mlflow_errors
from tasks.core.processes import tune_gc
from tasks.core.progress import mark_cached
from tasks.evaluate.language.inference import facts_of, message_in, scores_of
from tasks.language.answer_scoring import Score, summarise
from tasks.statistics.metric_catalog import CUSTOM

if TYPE_CHECKING:
    import pandas as pd

SERVED = "served"  # the variant whose answers are shown
SHOWN = 30  # examples; MLflow needs 0.1 to 0.2 s for each with its assessments
TIMEOUT = 120.0  # seconds for all of them
TAG = "driftline.assessed"  # of a run: the digest of the answers in its traces, or why there are none
SCORERS: dict[str, Callable[[Score], bool | float | None]] = {
    "exact_match": lambda score: score.exact,
    "schema_validity": lambda score: score.schema_valid,
    "field_f1": lambda score: summarise([score]).get("field_f1"),
    "hallucination": lambda score: score.hallucinated,
    "token_f1": lambda score: score.token_f1,
    "required_facts_recall": lambda score: summarise([score]).get("required_facts_recall"),
    "semantic_similarity": lambda score: score.similarity,
    "abstains_rightly": lambda score: None if score.should_abstain is None else score.abstained == score.should_abstain,
}


def show_answers(run_id: str, scores: Path, tracking: Tracking) -> str:
    """Log a sample of a verdict's answers, wrong ones first, with a judge's opinions on them; returns how many.

    The traces only show what the verdict holds, so a failure is a warning and a tag, and changes no verdict. Equal
    answers are logged once.
    """
    import pandas as pd

    scored = pd.read_parquet(scores)
    scored = scored[scored["variant"] == SERVED]
    rows = _rows(scored)
    key = cache_key(__name__, rows)
    with mlflow_errors(tracking.uri):
        client = mlflow_client(tracking)
        before = client.get_run(run_id)
        if before.data.tags.get(TAG) == key:
            mark_cached()
            return "shown before"
        experiment = before.info.experiment_id
        if old := [each.info.trace_id for each in client.search_traces(locations=[experiment], run_id=run_id)]:
            client.delete_traces(experiment, trace_ids=old)
        problem = _evaluate({"run_id": run_id, "rows": rows}, tracking)
        # MLflow reopens the run to evaluate, so its end is set back to where the training ended
        client.set_terminated(run_id, before.info.status, end_time=before.info.end_time)
        log_batch(client, run_id, tags={TAG: f"failed: {problem}" if problem else key})
    if problem:
        text = f"The verdict stands, but MLflow shows no traces of the answers: {problem}"
        warnings.warn(text, stacklevel=2)
        return "not shown"
    return f"{len(rows)} of {len(scored)} answers"


def _rows(scored: pd.DataFrame) -> list[dict[str, Any]]:
    shown = scored.sort_values("exact", kind="stable").head(SHOWN)
    return [
        {
            "message": message_in(row["messages"]),
            "intent": row["intent"],
            "expected": row["answer"],
            "answer": row["text"],
            "facts": facts_of(row),
            "scores": {name: value for name, value in _scores(score).items() if value is not None},
            "opinion": [row["judge_score"], row["judge_reason"]] if row.get("judge_reason") else None,
        }
        for row, score in zip(shown.to_dict("records"), scores_of(shown), strict=True)
    ]


def _scores(score: Score) -> dict[str, bool | float | None]:
    own = {f"{CUSTOM}{name}": value for name, value in (score.custom or {}).items()}
    return {name: value(score) for name, value in SCORERS.items()} | own


def _evaluate(request: dict[str, Any], tracking: Tracking) -> str:
    """Call MLflow in a process of its own, since it reads address and run from global state; returns the problem."""
    root = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "MLFLOW_TRACKING_URI": tracking.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # with its ten threads, SQLite is locked and traces are lost
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_MAX_SCORER_WORKERS": "1",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "TQDM_DISABLE": "1",
    }
    command = [sys.executable, "-m", "tasks.evaluate.language.genai_report"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"MLflow took more than {TIMEOUT:.0f} s"
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else lines[-1] if lines else f"the process ended with {done.returncode}"


def evaluate(run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Let MLflow evaluate existing answers in an existing run; its address is a global setting.

    Raises: RuntimeError when MLflow did not write every answer.
    """
    import mlflow
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.genai.scorers import scorer

    scores = {(row["message"], row["answer"]): row["scores"] for row in rows}
    opinions = {(row["message"], row["answer"]): row["opinion"] for row in rows if row["opinion"]}

    def stored_scorer(name: str) -> Any:
        # without aggregations: wrong answers come first, and the means of the whole evaluation are logged as evaluate_*
        @scorer(name=name, aggregations=[])
        def score(inputs: dict[str, Any], outputs: str) -> list[Feedback]:
            value = scores[inputs["message"], outputs].get(name)
            return [] if value is None else [Feedback(name=name, value=value)]

        return score

    @scorer(name="judge_score", aggregations=[])
    def judge(inputs: dict[str, Any], outputs: str) -> list[Feedback]:
        opinion = opinions.get((inputs["message"], outputs))
        source = AssessmentSource("LLM_JUDGE", "evaluate.judge")
        return [Feedback(name="judge_score", value=opinion[0], rationale=opinion[1], source=source)] if opinion else []

    data = [
        {
            "inputs": {"message": row["message"], "intent": row["intent"]},
            "outputs": row["answer"],
            "expectations": {"answer": row["expected"], "facts": row["facts"]},
        }
        for row in rows
    ]
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    scorers = [*map(stored_scorer, names), *([judge] if opinions else [])]
    with mlflow.start_run(run_id=run_id):
        result = mlflow.genai.evaluate(data=data, scorers=scorers)
    written = 0 if result.result_df is None else len(result.result_df)
    if written < len(rows):
        raise RuntimeError(f"only {written} of {len(rows)} answers were written")


def _main() -> None:
    tune_gc()
    request = json.loads(sys.stdin.read())
    evaluate(request["run_id"], request["rows"])


if __name__ == "__main__":
    _main()
