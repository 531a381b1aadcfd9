"""Questions on documents: answers from passages are scored as they are served, and models are not asked twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.data.config import Answer, ChatSpec
from tasks.data.language.pairs import Pair, PairFormat, read_pairs, write_pairs
from tasks.evaluate.language import response_cache
from tasks.evaluate.language.arms import Arms
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.metrics import counts_of, intervals_of, measure
from tasks.evaluate.language.prompt_tests import PromptBench, run_prompt_tests
from tasks.evaluate.language.responses import EngineOptions
from tasks.knowledge.answers.abstention import AbstentionRule
from tasks.knowledge.answers.answerer import SETTINGS, AnswerSettings
from tasks.knowledge.results import KnowledgeSpec
from tasks.language.prompt_tests import PromptTests
from tasks.language.prompts import Prompt
from tasks.train.config import Serving
from tasks.train.language.knowledge import add_knowledge, candidate_index
from tasks.train.results import LanguageSpec
from tests.knowledge_base import embedder_files, indexed, knowledge_of, write_pages
from tests.language_case import smollm_base

ABSTAIN = "The documents do not say."
ANSWER = Answer(format="text", abstain=ABSTAIN)
PAGES: dict[str, str | bytes] = {
    "cats.md": "# Cats\n\nCats purr when they are content.\n\n## Food\n\nA cat eats fish and meat, twice a day.\n",
    "boats.md": "# Boats\n\nA boat floats.\n\n## Sails\n\nThe jib has 12 m2 and is hoisted with `hoist jib`.\n",
}
QUESTIONS: list[dict[str, Any]] = [
    {
        "prompt": "What does a cat eat?",
        "required_facts": ["fish", "meat"],
        "evidence": [{"document": "pages/cats.md", "quote": "a cat eats fish and meat"}],
    },
    {
        "prompt": "How is the jib hoisted?",
        "required_facts": ["hoist jib", "of silk"],
        "evidence": [{"document": "pages/boats.md", "quote": "hoisted with hoist jib"}],
    },
    {"prompt": "Who won the football match in Vienna?", "unanswerable": True},
]


def pairs_of(rows: list[dict[str, Any]]) -> list[Pair]:
    complete = [{"required_facts": None, "evidence": None, "unanswerable": None, **row} for row in rows]
    return read_pairs("questions", complete, PairFormat(ANSWER))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    home = write_pages(tmp_path_factory.mktemp("case"), PAGES)
    settings = knowledge_of(answer_by="extract")
    knowledge = KnowledgeSpec(settings=settings, index=indexed(home, settings), embedder=embedder_files())
    chat = ChatSpec(prompt=Prompt(system="Answer."), answer=ANSWER, context=512)
    spec = LanguageSpec(base=smollm_base(), chat=chat, serving=Serving(answer_tokens=32), knowledge=knowledge)
    write_pairs(pairs_of(QUESTIONS), home / "evaluation.parquet")
    add_knowledge(spec, home, home / "candidate")
    return Arms(EvaluationRun(home, spec, 1, home / "state"), home / "candidate")


def test_a_candidate_holds_index_and_settings(arms: Arms) -> None:
    """Its own index, and the default rule where there are no development questions."""
    settings = AnswerSettings.model_validate_json((arms.folder / SETTINGS).read_bytes())
    assert (settings.abstain, settings.threshold, settings.tokens) == (ABSTAIN, AbstentionRule(), 480)
    assert candidate_index(arms.folder).passages == 4


def test_an_extract_is_scored_as_it_is_served(arms: Arms) -> None:
    """Rankings, citations, facts and abstentions, each over the questions that it applies to."""
    questions = arms.run.evaluation_set
    scored, timing = arms.answers("extractive", Path("no model"), questions, arms.answerer("extract"))
    metrics, counts = measure(scored, timing, 0.1), counts_of(scored)
    exact = ("recall_at_5", "mrr", "groundedness", "abstention_recall")
    assert {name: metrics[name] for name in exact} == dict.fromkeys(exact, 1.0)
    assert (metrics["wrong_abstention_rate"], metrics["required_facts_recall"]) == (0.0, 0.75)
    assert (counts["recall_at_5"], counts["required_facts_recall"], counts["abstention_recall"]) == (2, 4, 1)
    assert 0 < metrics["citation_precision"] <= 1
    assert "replaced_rate" not in metrics  # no model answered
    assert "ndcg_at_10" in intervals_of(scored) or metrics["n"] == 3
    assert scored["text"].tolist().count(ABSTAIN) == 1


def test_only_the_served_arm_answers_what_nobody_knows(arms: Arms) -> None:
    """A comparison would say nothing, and would ask models for minutes: here none is asked."""
    unknown = arms.run.evaluation_set.assign(answer="", required_facts="[]", evidence="[]")
    assert list(arms.side_by_side(unknown)) == ["extractive"]
    alone = replace(arms, compared=0)
    assert list(alone.side_by_side(arms.run.evaluation_set)) == ["extractive"]
    assert {each["n"] for each in arms.retrieval(unknown).values()} == {0}


def test_models_answer_beside_the_extracts(arms: Arms) -> None:
    """The base as it is, with the prompt, and with the passages before each question."""
    scored = arms.side_by_side(arms.run.evaluation_set)
    assert list(scored) == ["base", "prompt_only", "retrieval", "extractive"]
    assert {len(table) for table, _ in scored.values()} == {3}


def test_retrieval_alone_is_measured_by_method(arms: Arms) -> None:
    """Words, vectors and both, over the questions with evidence."""
    metrics = arms.retrieval(arms.run.evaluation_set)
    assert {name: (each["recall_at_5"], each["n"]) for name, each in metrics.items()} == dict.fromkeys(
        ("words", "vectors", "hybrid"), (1.0, 2)
    )


def test_a_model_answers_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of the documents, conversations with other passages are sent, and no others."""
    sent: list[str] = []

    def respond(model: Path, conversations: Any, *_: Any) -> tuple[pd.DataFrame, dict[str, float]]:
        sent.extend(each[0]["content"] for each in conversations)
        rows = [{"text": each[0]["content"].upper(), "seconds": 0.1} for each in conversations]
        return pd.DataFrame(rows), {"latency_p50_ms": 100.0, "seconds_per_answer": 0.1}

    monkeypatch.setattr(response_cache, "generate_responses", respond)
    (tmp_path / "model.gguf").write_bytes(b"weights")

    def ask(*texts: str, tokens: int = 32) -> list[str]:
        options = EngineOptions(Serving(answer_tokens=tokens), 512, 1)
        conversations = [[{"role": "user", "content": text}] for text in texts]
        table, _ = response_cache.cached_responses(tmp_path / "model.gguf", conversations, options, tmp_path)
        return list(table["text"])

    assert ask("a", "b") == ["A", "B"]
    assert ask("c", "b", "a") == ["C", "B", "A"]
    assert sent == ["a", "b", "c"]
    ask("a", tokens=16)
    (tmp_path / "model.gguf").write_bytes(b"other weights")
    ask("a")
    assert sent == ["a", "b", "c", "a", "a"]  # other options, and another model


def test_prompt_tests_are_answered_from_passages(arms: Arms) -> None:
    """As the case answers: extracts without a call of the model, and the abstention where no passage answers."""
    tests = PromptTests.model_validate(
        {
            "tests": [
                {"message": "What does a cat eat?", "required": ["fish", "meat"]},
                {"message": "Who won the football match in Vienna?", "required": [ABSTAIN]},
                {"message": "How is the jib hoisted?", "required": ["by hand"]},
            ]
        }
    )
    bench = PromptBench(arms.run.spec.serving, 512, 1, arms.run.state, answerer=arms.answerer("extract"))
    answers = run_prompt_tests(Path("no model"), arms.run.spec.chat.prompt, tests, bench)
    assert [answer.failed for answer in answers] == [(), (), ("does not state by hand",)]


def test_prompt_tests_ask_the_model_with_passages(arms: Arms) -> None:
    """A case that answers by its model sends it the passages; what states none of them is replaced."""
    tests = PromptTests.model_validate({"tests": [{"message": "What does a cat eat?", "max_tokens": 32}]})
    bench = PromptBench(arms.run.spec.serving, 512, 1, arms.run.state, answerer=arms.answerer("model"))
    (answer,) = run_prompt_tests(smollm_base().served, arms.run.spec.chat.prompt, tests, bench)
    assert answer.text == ABSTAIN or "fish" in answer.text or "meat" in answer.text
