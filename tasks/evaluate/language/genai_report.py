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
from tasks.core.progress import progress_step
from tasks.data.config import Answer
from tasks.data.language.scorer import scorer_of
from tasks.evaluate.language.inference import facts_of, message_in
from tasks.language.answer_scoring import Score, summarise

if TYPE_CHECKING:
    import pandas as pd

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
    "abstains_rightly": lambda score: score.abstained == score.should_abstain,
}


def log_genai_evaluation(
    run_id: str, scored: pd.DataFrame, answer: Answer, opinions: Mapping[str, tuple[float, str]], tracking: Tracking
) -> None:
    """Log a sample of scored answers, wrong ones first, with a judge's opinions on them (score and reason by pair).

    The traces only show what the verdict holds, so a failure is a warning and a tag, and changes no verdict. Equal
    answers are logged once.
    """
    rows = _rows(scored, opinions)
    key = cache_key(__name__, [rows, answer.digest])
    with progress_step("show the answers in MLflow") as step, mlflow_errors(tracking.uri):
        client = mlflow_client(tracking)
        before = client.get_run(run_id)
        if before.data.tags.get(TAG) == key:
            step.figure = "shown before"
            return
        experiment = before.info.experiment_id
        if old := [each.info.trace_id for each in client.search_traces(locations=[experiment], run_id=run_id)]:
            client.delete_traces(experiment, trace_ids=old)
        problem = _evaluate({"run_id": run_id, "rows": rows, "answer": answer.model_dump(mode="json")}, tracking)
        # MLflow reopens the run to evaluate, so its end is set back to where the training ended
        client.set_terminated(run_id, before.info.status, end_time=before.info.end_time)
        log_batch(client, run_id, tags={TAG: f"failed: {problem}" if problem else key})
        step.figure = f"{len(rows)} of {len(scored)} answers" if not problem else "not shown"
    if problem:
        text = f"The verdict stands, but MLflow shows no traces of the answers: {problem}"
        warnings.warn(text, stacklevel=2)


def _rows(scored: pd.DataFrame, opinions: Mapping[str, tuple[float, str]]) -> list[dict[str, Any]]:
    return [
        {
            "message": message_in(row["messages"]),
            "intent": row["intent"],
            "expected": row["answer"],
            "answer": row["text"],
            "facts": facts_of(row),
            "opinion": opinions.get(row["pair_id"]),
        }
        for row in scored.sort_values("exact", kind="stable").head(SHOWN).to_dict("records")
    ]


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


def evaluate(run_id: str, rows: Sequence[Mapping[str, Any]], answer: Answer) -> None:
    """Let MLflow evaluate existing answers in an existing run; its address is a global setting.

    Raises: RuntimeError when MLflow did not write every answer.
    """
    import mlflow
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.genai.scorers import scorer

    computed = scorer_of(answer)
    opinions = {(row["message"], row["answer"]): row["opinion"] for row in rows if row["opinion"]}

    def computed_scorer(name: str) -> Any:
        # without aggregations: wrong answers come first, and the means of the whole evaluation are logged as evaluate_*
        @scorer(name=name, aggregations=[])
        def score(inputs: dict[str, Any], outputs: str, expectations: dict[str, Any]) -> list[Feedback]:
            value = SCORERS[name](
                computed.score(outputs, expectations["answer"], inputs["message"], *expectations["facts"])
            )
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
    scorers = [*map(computed_scorer, SCORERS), *([judge] if opinions else [])]
    with mlflow.start_run(run_id=run_id):
        result = mlflow.genai.evaluate(data=data, scorers=scorers)
    written = 0 if result.result_df is None else int(result.result_df["exact_match/value"].notna().sum())
    if written < len(rows):
        raise RuntimeError(f"only {written} of {len(rows)} answers were written")


def _main() -> None:
    tune_gc()
    request = json.loads(sys.stdin.read())
    evaluate(request["run_id"], request["rows"], Answer.model_validate(request["answer"]))


if __name__ == "__main__":
    _main()
