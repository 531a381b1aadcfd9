"""A language model is judged by its answers, and what can't be computed never promotes."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import DataError, DriftlineError
from tasks.core.mlflow import Tracking, get_or_create_experiment, mlflow_client, start_run
from tasks.core.places import Places
from tasks.data.config import Answer, ChatSpec
from tasks.data.results import GGUF, BaseModelFiles
from tasks.evaluate.config import ChampionGate, LanguageEvaluation
from tasks.evaluate.criteria import losses_criterion, paired_criterion
from tasks.evaluate.language import genai_report as assess
from tasks.evaluate.language.check import PASSAGE_METRICS, TEXT_METRICS
from tasks.evaluate.language.gates import evaluate_language_gates
from tasks.evaluate.language.metrics import clusters_of, intervals_of, measure, slices_of
from tasks.evaluate.recompute import recompute
from tasks.evaluate.report import explain
from tasks.evaluate.results import Champion, Criterion, EvaluationContext, Verdict
from tasks.language.engine import start_engine
from tasks.language.gguf_writer import write_gguf
from tasks.language.prompts import Prompt
from tasks.statistics.metric_catalog import metrics_of
from tasks.train.config import Lora, Serving
from tasks.train.language.model import add_adapter, load_base, save_adapter
from tasks.train.results import Candidate, LanguageSpec
from tests.evaluate.test_answer_scores import answered
from tests.language_case import smollm_base, tiny_opened
from tests.train.pairs import SYSTEM, write_pairs

PROMPT = Prompt(system=SYSTEM, baseline="Answer by this schema: {schema}", few_shot=2)
ANSWER = Answer(json_schema={"enum": ["find", "status"]}, abstain={"function": "none"}, stated=("origin", "flight"))
TALK = ChatSpec(prompt=PROMPT, answer=ANSWER, context=512)
SERVING = Serving(slots=2, answer_tokens=20)
STRICT: dict[str, Any] = {
    "bounds": [{"metric": "exact_match", "at_least": 0.5}, {"metric": "latency_p50_ms", "at_most": 60_000}],
    "champion_gate": {"loss": "inexact", "min_rows": 30},
    "above_few_shot": 0.4,
    "quantized_loss": 1.0,
    "parity": 2.0,  # rounded weights, where an untuned model wavers
}
LENIENT = STRICT | {"bounds": [{"metric": "exact_match", "at_least": 0}], "above_few_shot": -1}


@cache
def base_in(state: Path) -> BaseModelFiles:
    return tiny_opened(state / "base")


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Candidate:
    """The base itself, with an adapter that changes nothing, put forward as a candidate."""
    base, folder = base_in(state), tmp_path_factory.mktemp("untuned")
    save_adapter(add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=2), seed=0), folder / "adapter", base)
    write_gguf(base.folder, folder / "model.gguf", "q8_0")
    (folder / "model.f16.gguf").symlink_to(base.folder / GGUF)
    tracking = Tracking.in_folder(state)
    client = mlflow_client(tracking)
    with start_run(client, get_or_create_experiment(client, tracking, "answers"), "untuned", "untuned", {}) as run_id:
        pass
    return Candidate(
        case="answers",
        as_of=datetime(2013, 4, 1, tzinfo=UTC),
        run_id=run_id,
        folder=folder,
        weights_digest="0" * 64,
        frame=write_pairs(folder / "pairs", train=6, held=3),
        data_digest="0" * 32,
        definitions_digest="0" * 64,
        columns=(),
        train_rows=6,
        holdout_rows=3,
    )


def judged(candidate: Candidate, state: Path, gates: dict[str, Any], champion: Champion | None = None) -> Verdict:
    spec = LanguageSpec(base=base_in(state), chat=TALK, serving=SERVING)
    config = LanguageEvaluation.model_validate(gates)
    return evaluate_language_gates(
        candidate,
        spec,
        config,
        threads=1,
        context=EvaluationContext(Places.in_folder(state), champion or Champion(None)),
    )


def named(verdict: Verdict, name: str) -> Criterion:
    return next(criterion for criterion in verdict.criteria if criterion.name == name)


def test_an_untuned_model_is_rejected(untuned: Candidate, state: Path) -> None:
    """All gates are there with what was observed; the baselines stand beside; MLflow and the folder have the rows."""
    verdict = judged(untuned, state, STRICT)
    assert verdict.decision == "reject", explain(verdict)
    failed = {criterion.name for criterion in verdict.criteria if not criterion.passed}
    assert failed == {"exact_match", "exact_match_above_few_shot"}
    assert named(verdict, "champion_inexact").note == "no champion yet"
    assert not named(verdict, "latency_p50_ms").repeatable
    overall, baselines = verdict.metrics["overall"], verdict.metrics["baselines"]
    for found in (overall, baselines["zero_shot"], baselines["few_shot"]):
        wanted = {*metrics_of("answers")} - {
            "hallucination_rate",
            "field_precision",
            "judge_score",  # no judge is asked
            *TEXT_METRICS,
            *PASSAGE_METRICS,
        }  # of no stated value there is none
        assert wanted <= set(found)
        assert found["n"] == 3
    assert overall["exact_match"] < 0.5
    assert set(verdict.metrics["by_slice"]["intent"]) == {"find", "none", "status"}
    assert verdict.metrics["intervals"]["few_shot"]["exact_match"][0] >= 0
    again = recompute(verdict.scores.parent, verdict.digest)
    assert again.is_same
    assert {"exact_match", "champion_inexact", "exact_match_above_few_shot", "quantized_loss"} <= set(again.recomputed)
    assert {"latency_p50_ms", "parity_logprob_difference"} <= set(again.taken)
    scores = pd.read_parquet(verdict.scores)
    assert set(scores["variant"]) == {"served", "constrained", "zero_shot", "few_shot", "unquantized"}
    assert {"messages", "answer", "text", "exact", "tokens_out", "seconds"} <= set(scores)
    client = mlflow_client(Tracking.in_folder(state))
    assert client.get_run(untuned.run_id).data.metrics["evaluate_few_shot_exact_match"] >= 0
    files = {item.path for item in client.list_artifacts(untuned.run_id, "verdict")}
    assert {"verdict/wrong_answers.md", "verdict/answers.json", "verdict/criteria.json"} <= files
    assert judged(untuned, state, STRICT) == verdict


def test_mlflow_shows_the_answers_as_its_own_evaluation(untuned: Candidate, state: Path) -> None:
    """Each answer is a trace of the candidate's run with an assessment a scorer; the run stays as it ended."""
    verdict, tracking = judged(untuned, state, STRICT), Tracking.in_folder(state)
    assert assess.show_answers(untuned.run_id, verdict.scores, tracking) == "5 of 5 answers"
    assert assess.show_answers(untuned.run_id, verdict.scores, tracking) == "shown before"
    client = mlflow_client(tracking)
    logged = client.get_run(untuned.run_id)
    assert logged.data.tags["mlflow.runType"] == "genai_evaluate"
    assert logged.info.status == "FINISHED"
    traces = client.search_traces(locations=[logged.info.experiment_id], run_id=untuned.run_id)
    assert len(traces) == 5  # three ordinary ones and two unsafe
    named = {each.name for trace in traces for each in trace.info.assessments}
    assert {"exact_match", "schema_validity", "abstains_rightly", "answer"} <= named
    assert not [name for name in logged.data.metrics if "/mean" in name]  # of wrong ones first, a mean would mislead


def test_answers_that_mlflow_can_not_show_warn(
    untuned: Candidate, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict stands, a warning says why nothing is shown, and the run's tag says it for good."""
    monkeypatch.setattr(assess, "TIMEOUT", 0.01)
    verdict = judged(untuned, state, STRICT)
    tracking = Tracking.in_folder(state)
    client = mlflow_client(tracking)
    with start_run(client, get_or_create_experiment(client, tracking, "answers"), "unseen", "unseen", {}) as run_id:
        pass
    with pytest.warns(UserWarning, match="The verdict stands, but"):
        assert assess.show_answers(run_id, verdict.scores, tracking) == "not shown"
    logged = client.get_run(run_id)
    assert logged.data.tags[assess.TAG].startswith("failed: MLflow took more than")
    assert logged.info.status == "FINISHED"


def test_a_judge_that_is_silent_fails_its_own_bound_only(
    untuned: Candidate, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody answers, what needs the judge fails with the reason; once it answers, it is asked again."""
    model = smollm_base().folder / GGUF
    ask = {"url": "$OUR_JUDGE", "model": "smol", "key": "OUR_JUDGE_KEY", "examples": 2}
    gates = LENIENT | {"judge": ask, "bounds": [{"metric": "judge_score", "at_least": 1}]}
    with pytest.warns(UserWarning, match="OUR_JUDGE is not set"):
        verdict = judged(untuned, state, gates)
    assert verdict.decision == "insufficient evidence", explain(verdict)
    assert [each.name for each in verdict.criteria if not each.passed] == ["judge_score"]
    assert "OUR_JUDGE is not set" in named(verdict, "judge_score").note
    with start_engine(model, threads=1, slots=1, context=1024, name="smol") as running:
        monkeypatch.setenv("OUR_JUDGE", running.address + "/v1")
        monkeypatch.setenv("OUR_JUDGE_KEY", running.key)
        verdict = judged(untuned, state, gates)
    assert verdict.decision == "promote", explain(verdict)
    assert 1 <= verdict.metrics["overall"]["judge_score"] <= 5
    assert verdict.metrics["overall"]["judge_n"] == 2
    metrics = mlflow_client(Tracking.in_folder(state)).get_run(untuned.run_id).data.metrics
    assert metrics["evaluate_judge_score"] == verdict.metrics["overall"]["judge_score"]
    scores = pd.read_parquet(verdict.scores)
    assert scores[scores["variant"] == "served"]["judge_reason"].notna().sum() == 2


def test_gates_that_are_passed_promote(untuned: Candidate, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rejection was the gates' doing; and replies kept from another judgement are not asked for again."""
    from tasks.evaluate.language import responses as replies

    judged(untuned, state, STRICT)
    monkeypatch.setattr(replies, "open_engine", None)
    verdict = judged(untuned, state, LENIENT)
    assert verdict.decision == "promote", explain(verdict)


def test_answers_about_other_places_are_compared(untuned: Candidate, state: Path) -> None:
    """Each message with a place is sent again with another; the answers are stored, and the gate counts changes."""
    places = {"places": ("JFK", "BOS", "MIA"), "unused": ("Atlantis", "Utopia")}
    gates = LENIENT | {"counterfactuals": {"groups": places, "at_most": 0.01}}
    verdict = judged(untuned, state, gates)
    found = named(verdict, "counterfactual_changes")
    scores = pd.read_parquet(verdict.scores)
    swapped = scores[scores["variant"] == "counterfactual"]
    assert len(swapped) == 2  # one message names JFK
    assert f"of {len(swapped)} answers change" in found.note
    assert not found.passed  # so few show nothing of one in a hundred
    again = recompute(verdict.scores.parent, verdict.digest)
    assert again.is_same
    assert "counterfactual_changes" in again.taken


def test_a_second_tuning_asks_the_base_nothing(
    untuned: Candidate, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Baselines hang on base, prompt and examples: neither their answers nor their perplexities are computed again."""
    from tasks.evaluate.language import evaluation_run as evaluation
    from tasks.evaluate.language import responses as replies

    first, base = judged(untuned, state, STRICT), base_in(state)
    shutil.copytree(untuned.folder, tmp_path / "second", symlinks=True)
    save_adapter(add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4), seed=1), tmp_path / "second/adapter", base)
    write_gguf(base.folder, tmp_path / "second" / "model.gguf", "bf16")
    opened: list[Path] = []
    adapters: list[Path | None] = []
    from tasks.evaluate.language.logprobs import token_logprobs
    from tasks.language.open_engine import open_engine

    def opening(model: Path, *args: Any, **options: Any) -> Any:
        opened.append(model)
        return open_engine(model, *args, **options)

    def computing(base: BaseModelFiles, adapter: Path | None, *args: Any) -> Any:
        adapters.append(adapter)
        return token_logprobs(base, adapter, *args)

    monkeypatch.setattr(replies, "open_engine", opening)
    monkeypatch.setattr(evaluation, "token_logprobs", computing)
    second = untuned.model_copy(update={"folder": tmp_path / "second", "weights_digest": "4" * 64})
    verdict = judged(second, state, STRICT)
    assert set(opened) == {second.folder / "model.gguf"}
    assert set(adapters) == {second.folder / "adapter"}
    assert verdict.metrics["baselines"] == first.metrics["baselines"]


def test_what_can_not_be_computed_does_not_promote(untuned: Candidate, state: Path, tmp_path: Path) -> None:
    """A champion or unquantised weights that are missing, a damaged adapter: each is logged, none passes."""
    shutil.copytree(untuned.folder, tmp_path / "half", symlinks=True)
    (tmp_path / "half" / "model.f16.gguf").unlink()
    (tmp_path / "half" / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    half = untuned.model_copy(update={"folder": tmp_path / "half", "weights_digest": "1" * 64})
    bounds = [{"metric": "perplexity", "at_most": 1e9}]
    verdict = judged(half, state, LENIENT | {"bounds": bounds}, Champion(tmp_path / "gone", "c" * 64))
    assert verdict.decision == "insufficient evidence", explain(verdict)
    for name, note in {
        "perplexity": "adapter can't be read",
        "champion_inexact": "the champion can't answer",
        "quantized_loss": "no model to serve",
        "parity_logprob_difference": "adapter can't be read",
    }.items():
        assert named(verdict, name).observed is None
        assert not named(verdict, name).passed
        assert note in named(verdict, name).note


def test_missing_files_are_reported(untuned: Candidate, state: Path, tmp_path: Path) -> None:
    """No model, no pairs, no run: an error before anything is asked."""
    with pytest.raises(DataError, match="no model to serve"):
        judged(untuned.model_copy(update={"folder": tmp_path, "weights_digest": "2" * 64}), state, STRICT)
    with pytest.raises(DataError, match="no evaluation pairs"):
        judged(untuned.model_copy(update={"frame": tmp_path, "weights_digest": "3" * 64}), state, STRICT)
    with pytest.raises(DriftlineError, match="run is gone"):
        judged(untuned.model_copy(update={"run_id": "0" * 32}), state, STRICT)


def test_the_champion_gate_counts_wordings() -> None:
    """Worse fails, equal passes; and of a few wordings, however often filled, nothing is known."""
    gate = ChampionGate(loss="inexact", margin=0.02, min_rows=30)
    random = np.random.default_rng(0)
    good, bad = (random.random(400) < 0.1) * 1.0, (random.random(400) < 0.3) * 1.0
    many, few = [f"t{i % 40}" for i in range(400)], [f"t{i % 3}" for i in range(400)]
    assert losses_criterion(gate, good, good, clusters=many).passed
    assert losses_criterion(gate, good, bad, clusters=many).passed
    assert not losses_criterion(gate, bad, good, clusters=many).passed
    unknown = losses_criterion(gate, good, good, clusters=few)
    assert (unknown.passed, unknown.observed) == (False, None)
    assert "only 3 different wordings" in unknown.note
    assert paired_criterion("x", np.zeros(0), [], at_least=0).observed is None


def test_figures_and_their_intervals() -> None:
    """Rates are of ordinary pairs, refusals of unsafe ones; intervals hold the figure; a user's pair is a wording."""
    table = answered([i % 4 > 0 for i in range(40)])
    unsafe = answered([False] * 4).assign(unsafe=True, abstained=[True, True, True, False])
    both = pd.concat([table, unsafe], ignore_index=True)
    found = measure(both, {"latency_p50_ms": 5.0, "seconds_per_answer": 0.36}, price=0.1)
    assert (found["exact_match"], found["refusal_rate"], found["n"]) == (0.75, 0.75, 40)
    assert found["cost_per_1k_answers"] == pytest.approx(0.01)
    low, high = intervals_of(both)["exact_match"]
    assert 0.4 < low < 0.75 < high < 1
    assert {name: slice_["rows"] for name, slice_ in slices_of(both, "intent").items()} == {"a": 20, "b": 20}
    assert clusters_of(table.assign(template=[None] * 40)) == [f"p{i}" for i in range(40)]
    json.dumps(found)
