"""What a search finds becomes a new file with the tests of the prompt before, and is written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.prompt_optimize import write_draft
from flows.case import LanguageCase, load_case
from tasks.core.errors import CaseError
from tasks.core.settings import settings
from tasks.language.prompt_file import load_prompt
from tasks.language.prompts import Prompt
from tasks.search.results import SearchResult, TrialRecord

FOUND = Prompt.model_validate({"messages": [{"role": "system", "content": "Be brief."}]})
TESTS = {"tests": [{"message": "Hi", "max_words": 3}]}


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def case_of(cases: Path, **changes: object) -> LanguageCase:
    values: dict[str, object] = {
        "kind": "llm",
        "description": "A guide.",
        "model": {"source": "file://base.gguf"},
        "prompt": {"system": "Answer.", "tests": TESTS},
        "answer": {"format": "text", "abstain": "No."},
        "data": {"sources": {"questions": {"uri": "file://q.jsonl", "key": ["prompt"]}}},
        "pairs": {"sources": ["questions"]},
        "evaluate": {
            "bounds": [{"metric": "required_facts_recall", "at_least": 0}],
            "champion_gate": {"loss": "missing_facts"},
        },
    }
    (cases / "museum").mkdir(exist_ok=True)
    (cases / "museum" / "case.yaml").write_text(yaml.safe_dump({**values, **changes}))
    case = load_case("museum", cases)
    assert isinstance(case, LanguageCase)
    return case


def searched(prompt: Prompt = FOUND, chosen: int = 1) -> SearchResult:
    """A search that chose a prompt; 0: the case's own."""
    change = {"prompt": prompt.model_dump(mode="json", exclude_defaults=True)}
    trials = [TrialRecord(number=number, arm="prompt", label="", configuration={}, change=change) for number in (0, 1)]
    return SearchResult(
        case="museum",
        key="key",
        metric="missing_facts",
        folder=Path("search"),
        trials=tuple(trials),
        front=(chosen,),
        knee=None,
        chosen=chosen,
        comparison="mean difference -0.1",
        is_better=True,
        optimism=None,
        owned={"prompt": ("system", "messages")},
        examples=9,
        rungs=("questions 1 to 9",),
        stopped="the budget is spent",
        seconds=1.0,
        calls=20,
        money=0.0,
        budget="20-calls",
    )


def test_a_draft_has_the_tests_of_the_prompt(cases: Path) -> None:
    """Those in the case, or those of its prompt file; the same prompt is not written twice, another gets a number."""
    case = case_of(cases)
    path = write_draft(case, searched())
    assert path.name == "prompt-optimized.yaml"
    draft = load_prompt(path)
    assert (draft.digest, draft.tests) == (FOUND.digest, case.prompt.tests)
    assert "mean difference -0.1" in draft.notes
    assert write_draft(case, searched()) == path
    other = FOUND.model_copy(update={"variables": {"room": 2}})
    assert write_draft(case, searched(other)).name == "prompt-optimized-2.yaml"
    adopted = case_of(cases, prompt="prompts/prompt-optimized.yaml")
    third = write_draft(adopted, searched(FOUND.model_copy(update={"variables": {"room": 3}})))
    assert third.name == "prompt-optimized-3.yaml"
    assert load_prompt(third).tests == case.prompt.tests


def test_the_best_prompt_of_the_case_writes_nothing(cases: Path) -> None:
    """Where no prompt is better, there is no draft."""
    case = case_of(cases)
    assert write_draft(case, searched(chosen=0)) is None
    assert not list(case.folder.rglob("*optimized*"))


def test_a_search_needs_questions_and_a_prompt(cases: Path) -> None:
    """A case without pairs, and one whose answers are sentences of its passages."""
    from flows.language_search import check_searchable

    with pytest.raises(CaseError, match="no questions to compare"):
        check_searchable(case_of(cases, pairs={}))
    knowledge = {"documents": {"docs": {"uri": "file://*.md"}}, "embedder": "file://e", "answer_by": "extract"}
    with pytest.raises(CaseError, match="No prompt takes part"):
        check_searchable(case_of(cases, knowledge=knowledge))
    check_searchable(case_of(cases))


def test_instructions_come_from_the_case(cases: Path) -> None:
    """From its drafts, its description, and hints; text with Jinja's marks stays text."""
    from flows.language_search import instructions_of

    case = case_of(cases, description="A {{ guide }}.")
    write_draft(case, searched())
    found = instructions_of(case)
    assert found[0] == "Be brief."
    assert any("{{ abstain }}" in text for text in found)
    assert found[-1] == '{{ "A {{ guide }}." }}'
