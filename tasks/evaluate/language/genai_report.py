"""Answers as MLflow's GenAI evaluation shows them: a trace an example, with what each scorer says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.mlflow import Tracking, log_batch, mlflow_client, mlflow_errors
from tasks.core.processes import tune_gc
from tasks.core.progress import progress_step
from tasks.data.config import Answer
from tasks.evaluate.language.inference import message_in

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 30  # examples; MLflow writes each with its assessments in 0.1 to 0.2 s
PATIENCE = 120.0  # seconds for all of them
TAG = "driftline.assessed"  # of a run: which answers its traces show, or why there are none


def log_genai_evaluation(
    run_id: str, scored: pd.DataFrame, answer: Answer, opinions: Mapping[str, tuple[float, str]], place: Tracking
) -> None:
    """Show some scored answers, wrong ones first, with the opinions of a judge on them (score and reason by pair).

    They are a view of what the verdict keeps, so what goes wrong here is told, by a warning and a tag, and changes no
    verdict. The same answers are shown once.
    """
    rows = _rows(scored, opinions)
    key = cache_key(__name__, [rows, answer.digest])
    with progress_step("show the answers in MLflow") as told, mlflow_errors(place.uri):
        client = mlflow_client(place)
        before = client.get_run(run_id)
        if before.data.tags.get(TAG) == key:
            told.figure = "shown before"
            return
        place_of = [before.info.experiment_id]
        if old := [each.info.trace_id for each in client.search_traces(locations=place_of, run_id=run_id)]:
            client.delete_traces(place_of[0], trace_ids=old)
        problem = _evaluate({"run_id": run_id, "rows": rows, "answer": answer.model_dump(mode="json")}, place)
        # to evaluate, MLflow opens the run again: its end is put back to where the training ended
        client.set_terminated(run_id, before.info.status, end_time=before.info.end_time)
        log_batch(client, run_id, tags={TAG: f"failed: {problem}" if problem else key})
        told.figure = f"{len(rows)} of {len(scored)} answers" if not problem else "not shown"
    if problem:
        text = f"The verdict stands, but MLflow shows no traces of the answers: {problem}"
        warnings.warn(text, stacklevel=2)


def _rows(scored: pd.DataFrame, opinions: Mapping[str, tuple[float, str]]) -> list[dict[str, Any]]:
    first = scored.sort_values("exact", kind="stable").head(SHOWN)
    return [
        {
            "message": message_in(row["messages"]),
            "intent": row["intent"],
            "right": row["answer"],
            "given": row["text"],
            "opinion": opinions.get(row["pair_id"]),
        }
        for row in first.to_dict("records")
    ]


def _evaluate(asked: dict[str, Any], place: Tracking) -> str:
    """Call MLflow in a process of its own, since it takes address and run from what is global; give what went wrong."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "MLFLOW_TRACKING_URI": place.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # its ten threads lock each other out of SQLite, and then lose traces
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_MAX_SCORER_WORKERS": "1",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "TQDM_DISABLE": "1",
    }
    command = [sys.executable, "-m", "tasks.evaluate.language.genai_report"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"MLflow took more than {PATIENCE:.0f} s"
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else lines[-1] if lines else f"the process ended with {done.returncode}"


def evaluate(run_id: str, rows: Sequence[Mapping[str, Any]], answer: Answer) -> None:
    """Have MLflow evaluate answers that are given already, in a run that is there; its address is a global setting.

    Raises: RuntimeError when not every answer came to be shown.
    """
    import mlflow
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.genai.scorers import scorer

    from tasks.language.answer_scoring import Score, Scorer, summarise

    computing = Scorer(answer.json_schema, answer.stated, answer.abstain)
    opinions = {(row["message"], row["given"]): row["opinion"] for row in rows if row["opinion"]}

    def computed(name: str, of: Any) -> Any:
        # no means: the wrong answers come first, so those of the whole evaluation stand beside as evaluate_*
        @scorer(name=name, aggregations=[])
        def say(inputs: dict[str, Any], outputs: str, expectations: dict[str, Any]) -> list[Feedback]:
            value = of(computing.score(outputs, expectations["answer"], inputs["message"]))
            return [] if value is None else [Feedback(name=name, value=value)]

        return say

    def field_f1(score: Score) -> float | None:
        return summarise([score]).get("field_f1")

    @scorer(name="judge_score", aggregations=[])
    def judged(inputs: dict[str, Any], outputs: str) -> list[Feedback]:
        found = opinions.get((inputs["message"], outputs))
        source = AssessmentSource("LLM_JUDGE", "evaluate.judge")
        return [Feedback(name="judge_score", value=found[0], rationale=found[1], source=source)] if found else []

    scorers = [
        computed("exact_match", lambda score: score.exact),
        computed("schema_validity", lambda score: score.schema_valid),
        computed("field_f1", field_f1),
        computed("hallucination", lambda score: score.hallucinated),
        computed("abstains_rightly", lambda score: score.abstained == score.should_abstain),
        *([judged] if opinions else []),
    ]
    data = [
        {
            "inputs": {"message": row["message"], "intent": row["intent"]},
            "outputs": row["given"],
            "expectations": {"answer": row["right"]},
        }
        for row in rows
    ]
    with mlflow.start_run(run_id=run_id):
        found = mlflow.genai.evaluate(data=data, scorers=scorers)
    shown = 0 if found.result_df is None else int(found.result_df["exact_match/value"].notna().sum())
    if shown < len(rows):
        raise RuntimeError(f"only {shown} of {len(rows)} answers were written")


def _main() -> None:
    tune_gc()
    asked = json.loads(sys.stdin.read())
    evaluate(asked["run_id"], asked["rows"], Answer.model_validate(asked["answer"]))


if __name__ == "__main__":
    _main()
