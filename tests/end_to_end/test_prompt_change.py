"""A prompt file from a change to a gated release: tested, registered, traced, rolled back; and no data work twice."""

from __future__ import annotations

import json

import pytest

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.mlflow import Tracking
from tasks.core.settings import environment, settings
from tasks.core.sockets import http_client
from tasks.language.gguf_writer import write_gguf
from tasks.language.prompts import released_prompt
from tasks.language.prompts import render as render_prompt
from tasks.release.prompt_registry import registered_prompts
from tasks.release.registry import load_champion
from tasks.release.seal import read_manifest, release_folder
from tests.end_to_end.terminal import World
from tests.language_case import tiny_checkpoint, write_museum_questions

CASE = """
kind: llm
description: What a visitor asks a museum.
as_of: 2024-06-01
model: {source: "file://tiny.gguf", context: 256}
prompt: prompts/guide.yaml
answer: {format: text, abstain: "I don't know."}
data: {sources: {questions: {uri: file://questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions]}
serve: {answer_tokens: 8, slots: 2}
evaluate:
  bounds: [{metric: required_facts_recall, at_least: 0}]
  champion_gate: {loss: missing_facts, margin: 0.1, min_rows: 30}
"""
PROMPT = """
messages:
  - role: system
    content: |
      Answer in one sentence. If you can't: {{ abstain }}
  - {role: user, content: "Where are the maps?"}
  - {role: assistant, content: "In room 2."}
  - {role: user, content: "Question: {{ message }}"}
parameters: {max_tokens: 6}
notes: One example, since more made no difference.
"""
TESTS = """
pass_rate: 1.0
tests:
  - {message: "Where are the masks?", max_tokens: 6, forbidden: ["password"]}
"""
QUESTION = "Where do I find the masks?"


@pytest.fixture(scope="module")
def museum(tmp_path_factory, terminal) -> World:
    """A world in which the case has a champion. Its base has two thin layers: its answers are noise."""
    folder = tmp_path_factory.mktemp("prompts")
    world = World(folder, folder / "cases")
    case = world.cases / "museum"
    (case / "prompts").mkdir(parents=True)
    (case / "case.yaml").write_text(CASE)
    (case / "prompts" / "guide.yaml").write_text(PROMPT)
    (case / "prompts" / "guide.tests.yaml").write_text(TESTS)
    write_gguf(tiny_checkpoint(folder / "tiny"), case / "tiny.gguf", "bf16")
    write_museum_questions(case)
    done = terminal.run(world, "run museum")
    assert done.code == 0, done.output
    return world


def listed(museum, terminal) -> list[dict]:
    done = terminal.run(museum, "prompt list museum --json")
    assert done.code == 0, done.output
    return json.loads(done.output)


def test_the_service_renders_as_the_evaluation_did(museum):
    """The release seals the prompt; its golden conversations are what the engine of its service gets."""
    release = load_champion(Tracking.in_folder(museum.state), museum.state, "museum")
    prompt = released_prompt(release.folder)
    golden = json.loads((release.folder / "golden.json").read_text())
    turns = [{"role": "user", "content": QUESTION}]
    expected = render_prompt(prompt, turns)
    assert [each["content"] for each in expected] == [
        "Answer in one sentence. If you can't: I don't know.",
        "Where are the maps?",
        "In room 2.",
        f"Question: {QUESTION}",
    ]
    assert expected[:3] == golden[0]["messages"][:3]
    bento = bento_folder(museum.state / "bentoml", release.bento)
    own = [{"role": "system", "content": ""}, *turns]
    with (
        serve_bento(bento, environment(settings()), museum.folder / "served.log") as address,
        http_client(address, timeout=60) as client,
    ):
        answers = [client.post("/v1/chat/completions", json={"messages": each}) for each in (turns, expected, own)]
    rendered, sent, replaced = (answer.raise_for_status().json() for answer in answers)
    assert rendered["usage"]["prompt_tokens"] == sent["usage"]["prompt_tokens"] > replaced["usage"]["prompt_tokens"]
    assert rendered["choices"][0]["message"] == sent["choices"][0]["message"]
    assert rendered["usage"]["completion_tokens"] <= 6
    assert answers[0].headers["x-driftline-prompt"] == prompt.label


def test_a_changed_prompt_curates_nothing_anew(museum, terminal):
    """It is evaluated beside the champion, tested, released and registered; all data work comes from the cache."""
    before = museum.champion("museum")
    (first,) = listed(museum, terminal)
    assert first["aliases"] == ["production"]
    path = museum.cases / "museum" / "prompts" / "guide.yaml"
    path.write_text(PROMPT.replace("In room 2.", "You find them in room 2."))
    done = terminal.run(museum, "prompt test museum")
    assert done.code == 0, done.output
    assert "1 of 1" in done.output
    done = terminal.run(museum, "run museum --as-of 2024-06-01")
    assert done.code == 0, done.output
    assert {done.steps[title] for title in done.steps if title.startswith(("curate", "validate"))} == {"cached"}
    after = museum.champion("museum")
    assert after != before
    manifests = [read_manifest(release_folder(museum.state, "museum", each)) for each in (before, after)]
    assert len({manifest["sealed"]["data"] for manifest in manifests}) == 1
    names = {criterion["name"] for criterion in manifests[1]["sealed"]["verdict"]["criteria"]}
    assert {"prompt_tests", "champion_prompt_tests", "champion_missing_facts"} <= names
    newest, oldest = listed(museum, terminal)
    assert (newest["aliases"], oldest["aliases"], oldest["digest"]) == (["production"], [], first["digest"])


def test_the_history_says_who_moved_what_by_which_evidence(museum, terminal):
    """Candidate by a verdict, production by the promotion, back by a rollback with its reason."""
    done = terminal.run(museum, "rollback museum")
    assert done.code == 0, done.output
    versions = {each.version: each for each in registered_prompts(Tracking.in_folder(museum.state), "museum")}
    assert versions[1].aliases == ("production",)
    moves = json.loads(terminal.run(museum, "prompt history museum --json").output)
    assert [(each["alias"], each["prompt"]) for each in moves] == [
        ("production", versions[1].label),
        ("production", versions[2].label),
        ("candidate", versions[2].label),
        ("production", versions[1].label),
        ("candidate", versions[1].label),
    ]
    assert all("verdict" in each["evidence"] and each["actor"] for each in moves)
    assert "by command" in moves[0]["evidence"]


def test_a_failing_test_rejects_the_prompt(museum, terminal):
    """The champion stays, and the command line says which check failed."""
    champion = museum.champion("museum")
    tests = museum.cases / "museum" / "prompts" / "guide.tests.yaml"
    tests.write_text(TESTS + '  - {message: "Who are you?", required: ["a guide of the museum"]}\n')
    done = terminal.run(museum, "prompt test museum")
    assert (done.code, "does not state a guide of the museum" in done.output) == (3, True), done.output
    done = terminal.run(museum, "run museum")
    assert (done.code, museum.champion("museum")) == (3, champion), done.output
    assert "prompt_tests" in done.output


def test_a_search_keeps_its_budget_and_changes_no_file(museum, terminal):
    """Each call is counted, over several runs too; the best prompt, if any, is a new file."""
    folder = museum.cases / "museum"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = terminal.run(museum, "prompt optimize museum --budget 20-calls --json")
    assert done.code == 0, done.output
    found = json.loads(done.output)
    assert 0 < found["calls"] <= 20
    assert found["stopped"] == "the budget of 20 calls is spent"
    done = terminal.run(museum, "prompt optimize museum --budget 40-calls --json")
    assert found["calls"] < json.loads(done.output)["calls"] <= 40, done.output
    assert before == {path: path.read_bytes() for path in before}
    assert (found["file"] is None) == (not list(folder.rglob("*optimized*")))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("prompt show museum", "Question: {{ message }}"),
        ("prompt show museum --prompt production", "version 1"),
        ("prompt diff museum 1 guide", "+  content: You find them in room 2."),
        ("prompt diff museum 1 production", "are equal"),
        ("prompt render museum masks?", "Question: masks?"),
        ("prompt list museum", "in the case"),
    ],
)
def test_prompts_are_read_by_file_version_and_alias(museum, terminal, command, says):
    """Each reference names one prompt."""
    done = terminal.run(museum, command)
    assert done.code == 0, done.output
    assert says in done.output


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("prompt show museum --prompt guise", 2, "No prompt of museum has the name guise"),
        ("prompt diff museum guide 9", 2, "guide, 2 ("),
        ("prompt show nowhere", 2, "There is no case"),
        ("prompt optimize nowhere --budget 20-calls", 2, "There is no case"),
        ("prompt optimize museum --budget soon", 2, "The budget can't be read"),
    ],
)
def test_an_unknown_prompt_names_the_known_ones(museum, terminal, command, code, says):
    """By file and by version."""
    done = terminal.run(museum, command)
    assert (done.code, says in done.output) == (code, True), done.output


def test_an_invalid_prompt_runs_nothing(museum, terminal):
    """The error names the file and the line."""
    path = museum.cases / "museum" / "prompts" / "guide.yaml"
    text = path.read_text()
    path.write_text(text.replace("{{ message }}", "{{ mesage }}"))
    done = terminal.run(museum, "validate museum")
    path.write_text(text)
    assert done.code == 2
    assert "prompts/guide.yaml, line 8: unknown variable 'mesage'" in done.output
