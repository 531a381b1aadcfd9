"""Search a better prompt by MLflow's `optimize_prompts`, on questions that the gates never use."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import Result, digest_of
from tasks.core.errors import DataError, InputError
from tasks.core.files import file_digest
from tasks.core.mlflow import Tracking, get_or_create_experiment, log_batch, mlflow_client, start_run
from tasks.core.places import Places
from tasks.core.progress import progress_step
from tasks.evaluate.language.call_budget import CallBudget, Limit
from tasks.evaluate.language.counted_model import CountedModel
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.inference import message_in, score
from tasks.evaluate.language.metrics import answer_losses, clusters_of
from tasks.evaluate.language.prompt_optimizer import BLOCK, PairedRacing, Trial
from tasks.evaluate.language.prompt_space import Example, PromptSpace, registry_name
from tasks.evaluate.language.responses import EngineOptions
from tasks.knowledge.answers.answerer import Answerer, Prepared
from tasks.language.prompts import Prompt, render

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

SEARCHED = ("train", "validation", "development")  # splits whose pairs the gates never use
POOL_SHARE, MAX_POOL, MAX_QUESTIONS = 3, 32, 200  # a third of the pairs may become examples


class PromptSearch(Result):
    """What a search tried, what it cost, and the best prompt; None: the case's own is the best."""

    prompt: Prompt | None
    trials: tuple[Trial, ...]
    stopped: str
    questions: int
    pool: int
    loss: str
    comparison: str  # of the best prompt with the case's own, on the questions that chose it
    calls: int
    calls_before: int  # of those, by earlier runs of this search
    seconds: float


@dataclass(frozen=True)
class PromptTask:
    """What a search starts from: the case, its data, the model that answers and the loss."""

    case: str
    run: EvaluationRun
    data_digest: str
    model: Path
    loss: str
    answerer: Answerer | None = None  # of a case with knowledge
    knowledge_digest: str = ""

    @cached_property
    def questions(self) -> tuple[pd.DataFrame, list[Example]]:
        """The pairs that the prompts answer, and those that they may show as examples. Raises: DataError."""
        return searched_pairs(self.case, self.run.pairs, SEARCHED)


def searched_pairs(
    case: str, folder: Path, splits: Sequence[str], learned: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Example]]:
    """The pairs of these splits that a search answers, and those that prompts may show as examples.

    Examples come from the splits `learned`, which a model is trained on; without them, from the same splits.
    Raises: DataError when too few pairs are left beside those of the evaluation.
    """
    pairs = _read_splits(folder, splits)
    others = _read_splits(folder, learned)
    most = MAX_POOL if learned else max(0, min(len(pairs) // POOL_SHARE, len(pairs) - BLOCK, MAX_POOL))
    pool = others if learned else pairs
    examples = pool[[_is_example(row) for row in pool.to_dict("records")]].head(most)
    rest = pairs if learned else pairs.drop(examples.index)
    rest = rest.head(MAX_QUESTIONS).reset_index(drop=True)
    if len(rest) < BLOCK:
        raise DataError(
            "There are too few questions to compare prompts by.",
            where=f"case {case}, pairs",
            found=f"{len(pairs)} pairs beside those of the evaluation, which are left to the gates",
            allowed=f"at least {BLOCK}",
            todo="Add lines to a source of pairs.sources; a quarter of them is not used for evaluation.",
        )
    return rest, [(message_in(row["messages"]), row["answer"]) for row in examples.to_dict("records")]


def _read_splits(folder: Path, splits: Sequence[str]) -> pd.DataFrame:
    """The pairs of these splits, in an order that does not depend on their texts."""
    import pandas as pd

    files = [folder / f"{name}.parquet" for name in splits]
    tables = [pd.read_parquet(file) for file in files if file.is_file()]
    pairs = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if len(pairs):
        pairs = pairs.assign(unsafe=False, place=pairs["pair_id"].map(digest_of)).sort_values("place")
    return pairs


def search_prompt(task: PromptTask, space: PromptSpace, limit: Limit, places: Places) -> PromptSearch:
    """The best prompt that the budget allows. A search with equal inputs goes on where the last one ended.

    Raises: InputError when the budget is too small; DataError; Unavailable.
    """
    questions, _ = task.questions
    if limit.calls is not None and limit.calls < 2 * BLOCK:
        raise InputError(
            "The budget is too small to compare two prompts.",
            where="--budget",
            found=f"{limit.calls} calls",
            allowed=f"at least {2 * BLOCK} calls: two prompts answer {BLOCK} questions each",
        )
    key = _search_key(task, space)
    folder = places.state / "prompt_searches" / task.case / key[:16]
    budget = CallBudget(limit, folder / "calls.log")
    options = EngineOptions(
        task.run.spec.serving, task.run.spec.chat.context, task.run.threads, space.prompt.parameters
    )
    with progress_step("search a prompt") as step, CountedModel(task.model, options, budget, folder) as model:
        bench = _Bench(task, space, model)
        optimizer = PairedRacing(space, clusters_of(questions), lambda: bench.failure)
        with _mlflow_run(task, key, places.tracking, options.serving.slots) as (client, run_id):
            _optimize(bench, optimizer, client, run_id)
            spent = {"calls": budget.calls, "seconds": budget.seconds}
            log_batch(client, run_id, metrics=spent, params={"stopped": optimizer.stopped, "loss": task.loss})
        step.figure = f"{len(optimizer.trials)} prompts, {budget.calls - budget.calls_before} calls"
    difference = optimizer.difference
    best = None if difference is None else space.as_prompt(space.messages(optimizer.best.variant))
    return PromptSearch(
        prompt=best,
        trials=tuple(optimizer.trials),
        stopped=optimizer.stopped,
        questions=len(questions),
        pool=len(space.pool),
        loss=task.loss,
        comparison="" if difference is None else difference.sentence,
        calls=budget.calls,
        calls_before=budget.calls_before,
        seconds=budget.seconds,
    )


class _Bench:
    """Answers questions by a prompt's messages, and scores the answers."""

    def __init__(self, task: PromptTask, space: PromptSpace, model: CountedModel) -> None:
        self.task = task
        self.space = space
        self.failure: Exception | None = None  # the first; MLflow would score its text as an answer
        self._model = model
        self._rows = {row["pair_id"]: row for row in task.questions[0].to_dict("records")}
        self._prepared: dict[str, Prepared] = {}

    @property
    def data(self) -> list[dict[str, Any]]:
        """The questions in MLflow's form."""
        return [
            {
                "inputs": {"pair_id": name, "message": message_in(row["messages"])},
                "expectations": {"answer": row["answer"]},
            }
            for name, row in self._rows.items()
        ]

    def answer(self, pair_id: str, messages: list[dict[str, str]]) -> str:
        """The answer to a question by a prompt. Raises: what keeps the model from answering."""
        try:
            prompt = self.space.as_prompt(messages).bound(**self.space.texts)
            turns = json.loads(self._rows[pair_id]["messages"])
            if self.task.answerer is None:
                return str(self._model.answer(render(prompt, turns))["text"])
            if (prepared := self._prepared.get(pair_id)) is None:
                prepared = self._prepared[pair_id] = self.task.answerer.prepare(turns)
            text = self._model.answer(render(prompt, prepared.messages))["text"] if prepared.messages else ""
            return self.task.answerer.finish(prepared, text).text
        except Exception as failure:
            self.failure = self.failure or failure
            raise

    def score(self, pair_id: str, text: str) -> float:
        """1 minus the loss of an answer."""
        import pandas as pd

        if self.failure:
            return 0.0
        scored = score(pd.DataFrame([self._rows[pair_id]]), pd.DataFrame({"text": [text]}), self.task.run.scoring, "")
        return 1.0 - float(answer_losses(scored, self.task.loss)[0])


def _is_example(pair: dict[Any, Any]) -> bool:
    """Whether a pair can stand in a prompt: one message with a reference."""
    return bool(pair["answer"].strip()) and len(json.loads(pair["messages"])) == 1


def _search_key(task: PromptTask, space: PromptSpace) -> str:
    spec = task.run.spec
    return cache_key(
        __name__,
        {
            "model": file_digest(task.model),
            "spec": [spec.definitions_digest, spec.serving.digest, spec.chat.context],
            "space": [space.prompt.digest, list(space.instructions), dict(space.texts)],
            "data": [task.data_digest, task.knowledge_digest],
            "loss": [task.loss, dict(task.run.scorers)],
        },
    )


def _optimize(bench: _Bench, optimizer: PairedRacing, client: MlflowClient, run_id: str) -> None:
    """Let MLflow optimize, in a run that exists."""
    import mlflow
    from mlflow.genai.scorers import scorer

    start = _registered_start(client, bench.task.case, bench.space)
    version = mlflow.genai.load_prompt(f"prompts:/{start.name}/{start.version}")

    def predict(pair_id: str, message: str) -> str:
        return bench.answer(pair_id, list(version.template))  # MLflow puts the candidate's messages in its place

    @scorer(name="score")
    def score_answer(inputs: dict[str, Any], outputs: str) -> float:
        return bench.score(inputs["pair_id"], outputs)

    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's of its own kinds of data sets
        mlflow.genai.optimize_prompts(
            predict_fn=predict,
            train_data=bench.data,
            prompt_uris=[version.uri],
            optimizer=optimizer,
            scorers=[score_answer],
        )


def _registered_start(client: MlflowClient, case: str, space: PromptSpace) -> Any:
    """The version of the prompt that the search starts from, registered once."""
    name, digest = registry_name(case), space.prompt.digest
    if client.get_prompt(name) is not None:
        for version in client.search_prompt_versions(name, max_results=200):
            if version.tags.get("digest") == digest:
                return version
    messages = space.messages(space.start)
    return client.register_prompt(name, messages, tags={"digest": digest}, commit_message="start of a search")


@contextmanager
def _mlflow_run(task: PromptTask, key: str, tracking: Tracking, workers: int) -> Iterator[tuple[MlflowClient, str]]:
    """A run in the case's experiment, and MLflow's global settings for it; they are reset afterwards."""
    import mlflow

    variables = {
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": str(workers),
        "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",  # it would call the model once, and then write traces
    }
    before, uri = {name: os.environ.get(name) for name in variables}, mlflow.get_tracking_uri()
    client = mlflow_client(tracking)
    experiment = get_or_create_experiment(client, tracking, task.case)
    os.environ.update(variables)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        with start_run(client, experiment, key, "prompt search", {}) as run_id:
            yield client, run_id
    finally:
        mlflow.set_tracking_uri(uri)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
