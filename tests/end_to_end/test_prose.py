"""A language case without training: a base model, a prompt, and answers in prose, from questions to a champion."""

from __future__ import annotations

import json

import pytest

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.mlflow import Tracking
from tasks.core.settings import environment, settings
from tasks.core.sockets import http_client
from tasks.language.gguf_writer import write_gguf
from tasks.release.registry import load_champion
from tests.end_to_end.small import change_case
from tests.end_to_end.terminal import World
from tests.language_case import tiny_checkpoint, write_museum_questions

CASE = """
kind: llm
description: What a visitor asks a museum.
as_of: 2024-06-01
model: {source: "file://tiny.gguf", context: 256}
prompt: {system: "Answer in one sentence."}
answer: {format: text, abstain: "I don't know."}
data: {sources: {questions: {uri: file://questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions]}
serve: {answer_tokens: 8, slots: 2}
evaluate:
  bounds: [{metric: required_facts_recall, at_least: 0}]
  champion_gate: {loss: missing_facts, margin: 0.1, min_rows: 30}
"""


@pytest.fixture(scope="module")
def museum(tmp_path_factory, terminal) -> World:
    """A world in which the case has a champion. Its base has two thin layers: its answers are noise."""
    folder = tmp_path_factory.mktemp("prose")
    world = World(folder, folder / "cases")
    case = world.cases / "museum"
    case.mkdir(parents=True)
    (case / "case.yaml").write_text(CASE)
    write_gguf(tiny_checkpoint(folder / "tiny"), case / "tiny.gguf", "bf16")
    write_museum_questions(case)
    done = terminal.run(world, "run museum")
    assert done.code == 0, done.output
    return world


def test_a_prompt_alone_becomes_a_champion(museum, terminal):
    """Without `train` nothing is tuned: the verdict has the metrics of prose, and none of JSON or of a tuned model."""
    done = terminal.run(museum, "show museum --json")
    shown = json.loads(done.output)
    assert shown["verdict"]["decision"] == "promote"
    assert {"token_f1", "required_facts_recall", "exact_match", "latency_p50_ms"} <= set(shown["metrics"])
    assert not {"json_validity", "perplexity"} & set(shown["metrics"])
    assert shown["baselines"] == {}
    names = {criterion["name"] for criterion in shown["verdict"]["criteria"]}
    assert names == {"required_facts_recall", "champion_missing_facts"}


def test_the_release_answers_in_prose(museum):
    """The service holds no answer to a schema unless a client names one."""
    release = load_champion(Tracking.in_folder(museum.state), museum.state, "museum")
    bento = bento_folder(museum.state / "bentoml", release.bento)
    body = {"messages": [{"role": "user", "content": "Where do I find the masks?"}]}
    schema = {"type": "object", "properties": {"room": {"enum": [1]}}, "required": ["room"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "room", "schema": schema}}
    with (
        serve_bento(bento, environment(settings()), museum.folder / "served.log") as address,
        http_client(address, timeout=60) as client,
    ):
        texts = [
            client.post("/v1/chat/completions", json=each).raise_for_status().json()["choices"][0]["message"]["content"]
            for each in (body, {**body, "response_format": wanted, "max_tokens": 30})
        ]
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(texts[0])
    assert set(json.loads(texts[1])) == {"room"}


def test_another_prompt_is_judged_beside_the_champion(museum, terminal):
    """A changed prompt is another candidate; both answer the same frozen questions."""
    champion = museum.champion("museum")
    change_case(museum.cases / "museum", prompt={"system": "Name the room."})
    done = terminal.run(museum, "run museum")
    assert done.code == 0, done.output
    assert museum.champion("museum") != champion
    shown = json.loads(terminal.run(museum, "show museum --json").output)
    criterion = next(each for each in shown["verdict"]["criteria"] if each["name"] == "champion_missing_facts")
    assert criterion["observed"] is not None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answer": {"format": "json"}}, "format json needs json_schema"),
        ({"answer": {"format": "text", "stated": ["room"]}}, "are for format: json"),
        ({"evaluate__bounds": [{"metric": "json_validity", "at_least": 1}]}, "json_validity needs answer.format: json"),
        ({"evaluate__bounds": [{"metric": "perplexity", "at_most": 9}]}, "perplexity needs train"),
        ({"evaluate__above_few_shot": 0.1}, "prompt.baseline: without it"),
        ({"serve": {"engine": "vllm", "weights": "f16"}}, "serve.engine: vllm needs train"),
    ],
)
def test_a_gate_that_prose_can_not_have_is_an_error(museum, terminal, tmp_path, changes, says):
    """Form, gates and engine are checked together before anything runs."""
    world = World(museum.folder, tmp_path / "cases")
    folder = world.cases / "museum"
    folder.mkdir(parents=True)
    (folder / "case.yaml").write_text(CASE)
    for name in ("tiny.gguf", "questions.jsonl"):
        (folder / name).symlink_to(museum.cases / "museum" / name)
    change_case(folder, **changes)
    done = terminal.run(world, "validate museum")
    assert done.code == 2
    assert says in done.output


DESK = """
kind: llm
description: What a visitor asks a desk.
as_of: 2024-06-01
model: {source: "file://../museum/tiny.gguf", context: 256}
prompt: {system: "Answer in one sentence."}
answer: {format: text}
serve: {answer_tokens: 8, slots: 2}
evaluate:
  scorers: {brief: "scorers.py:brief"}
  bounds: [{metric: empty_rate, at_most: 1}, {metric: scorers.brief, at_least: 0.9}]
  champion_gate: {loss: scorers.brief, margin: 0.1, min_rows: 30}
"""
BRIEF = "def brief(message, answer, reference, required_facts):\n    return len(answer.split()) <= LIMIT\n"


def test_a_prompt_without_pairs_becomes_a_champion(museum, terminal):
    """What needs no right answer is gated, by a scorer of the case too; the verdict names what is not judged.

    A failing scorer names its line, and nothing is promoted.
    """
    case = museum.cases / "desk"
    case.mkdir()
    (case / "case.yaml").write_text(DESK)
    (case / "scorers.py").write_text(BRIEF.replace("LIMIT", "20"))
    done = terminal.run(museum, "run desk")
    assert done.code == 0, done.output
    shown = json.loads(terminal.run(museum, "show desk --json").output)
    assert shown["metrics"]["scorers.brief"] == 1.0
    assert shown["metrics"]["n"] >= 30
    assert not {"exact_match", "token_f1", "required_facts_recall"} & set(shown["metrics"])
    warning = next(each for each in shown["verdict"]["criteria"] if each["name"] == "known_answers")
    assert not warning["blocking"]
    assert "not judged: exact_match" in warning["note"]
    (case / "scorers.py").write_text(BRIEF.replace("LIMIT", "1 / 0"))
    failed = terminal.run(museum, "run desk")
    assert failed.code != 0
    assert "scorers.py, line 2" in failed.output
    release = json.loads(terminal.run(museum, "show desk --json").output)["release"]["digest"]
    assert release == shown["release"]["digest"]


TUNED = """
kind: llm
description: What a visitor asks a guide.
as_of: 2024-06-01
model: {source: "file://../museum/tiny.gguf", context: 256}
prompt: {system: "Answer in one sentence.", baseline: "Name the room."}
answer: {format: text, abstain: "I don't know."}
data: {sources: {questions: {uri: file://../museum/questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions], train: 40, validation: 16}
train:
  max_tokens: 128
  threads: 1
  stages:
    sft: {steps: 4, batch: 4, warmup: 1, evaluate_every: 2, learning_rate: 1.0e-2}
    preference: {steps: 1, batch: 4, pairs: 8}
serve: {answer_tokens: 8, slots: 2}
evaluate:
  bounds: [{metric: token_f1, at_least: 0}]
  champion_gate: {loss: token_distance, margin: 0.1, min_rows: 30}
  quantized_loss: 1
  parity: 5
"""


def test_answers_in_prose_are_tuned(museum, terminal):
    """Both stages learn from texts; the tuned model is judged beside its base, which it betters, and is served."""
    case = museum.cases / "guide"
    case.mkdir()
    (case / "case.yaml").write_text(TUNED)
    done = terminal.run(museum, "run guide")
    assert done.code == 0, done.output
    shown = json.loads(terminal.run(museum, "show guide --json").output)
    baselines = shown["baselines"]
    assert shown["metrics"]["perplexity"] < baselines["zero_shot"]["perplexity"]
    assert {"token_f1", "exact_match"} <= set(baselines["few_shot"])
