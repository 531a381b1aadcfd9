"""What a search chose becomes the case that a run trains and judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.case import LanguageCase, load_case
from flows.search import proposed_case
from tasks.core.errors import CaseError
from tasks.search.results import SearchResult, TrialRecord

CASE = {
    "kind": "llm",
    "description": "A guide.",
    "model": {"source": "file://base.gguf"},
    "prompt": {"system": "Answer.", "few_shot": 3, "tests": {"tests": [{"message": "Hi", "max_words": 3}]}},
    "answer": {"format": "text", "abstain": "No."},
    "data": {"sources": {"questions": {"uri": "file://q.jsonl", "key": ["prompt"]}}},
    "pairs": {"sources": ["questions"]},
    "knowledge": {"documents": {"docs": {"uri": "file://*.md"}}, "embedder": "file://e", "split": {"overlap": 8}},
    "evaluate": {
        "bounds": [{"metric": "required_facts_recall", "at_least": 0}],
        "champion_gate": {"loss": "missing_facts", "margin": 0.1},
    },
}


def case_of(folder: Path, **changes: Any) -> LanguageCase:
    (folder / "museum").mkdir()
    (folder / "museum" / "case.yaml").write_text(yaml.safe_dump({**CASE, **changes}))
    case = load_case("museum", folder)
    assert isinstance(case, LanguageCase)
    return case


def chosen(**change: Any) -> SearchResult:
    """A search whose best trial has this change."""
    trial = TrialRecord(number=1, arm="retrieval", label="", configuration={}, change=change)
    return SearchResult.model_construct(trials=(trial,), chosen=1, owned={"prompt": ("system", "messages")})


def test_a_language_case_takes_what_was_chosen(tmp_path: Path) -> None:
    """Sections have the keys of the trial, and keep their others; the proposal must be better, not only no worse."""
    case = case_of(tmp_path)
    shown = [{"role": "system", "content": "Be brief."}]
    change = {"prompt": {"messages": shown}, "knowledge": {"passages": 3}}
    proposed = proposed_case(case, chosen(**change))
    bare = proposed_case(case, chosen(knowledge=None))
    assert isinstance(proposed, LanguageCase)
    assert isinstance(bare, LanguageCase)
    assert proposed.prompt.messages[0].content == "Be brief."
    assert (proposed.prompt.system, proposed.prompt.few_shot) == ("", 3)
    assert proposed.prompt.tests == case.prompt.tests
    assert proposed.knowledge is not None
    assert (proposed.knowledge.passages, proposed.knowledge.split.overlap) == (3, 8)
    assert proposed.evaluate.champion_gate.margin == 0
    assert proposed.digest != case.digest
    assert bare.knowledge is None


@pytest.mark.parametrize("key", [{"metric": "auc"}, {"families": ["linear"]}, {"ms_per_row": 5}])
def test_keys_of_tables_are_refused(tmp_path: Path, key: dict[str, Any]) -> None:
    """A language case is searched by the loss of its gate: another metric would be ignored."""
    with pytest.raises(CaseError, match=r"evaluate\.champion_gate\.loss"):
        case_of(tmp_path, search=key)
