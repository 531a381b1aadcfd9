"""Promise: rules are sealed with a release; every change of them changes its digest, and damage is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import DataError, NoDataYet
from tasks.core.files import write_text
from tasks.guard.config import Guardrails, with_floor
from tasks.guard.files import GuardSpec, find_guard_spec, open_guard
from tasks.guard.sealed_files import RULES, guard_digest, guard_files

WORDS: dict[str, Any] = {"check": "words", "words": ["blorbo"], "action": "refuse"}


def sealed(folder: Path, *rules: dict[str, Any]) -> str:
    """The digest of rules in a release's folder."""
    for name, content in GuardSpec(guardrails=Guardrails.model_validate({"input": rules})).files().items():
        assert isinstance(content, str)
        write_text(folder / name, content)
    return guard_digest(guard_files(folder))


def test_the_digest_changes_with_each_rule(tmp_path):
    digests = [
        sealed(tmp_path / str(number), rule)
        for number, rule in enumerate([WORDS, {**WORDS, "mode": "shadow"}, {**WORDS, "words": ["blorb"]}])
    ]
    assert len(set(digests)) == 3


def test_a_release_without_rules_has_no_files(tmp_path):
    """Releases of earlier versions have none either: their digest is empty, and nothing is checked."""
    assert sealed(tmp_path) == ""
    assert open_guard(tmp_path).check("blorbo", "input").action == "allow"


def test_sealed_rules_are_applied(tmp_path):
    sealed(tmp_path, WORDS)
    assert open_guard(tmp_path).check("blorbo", "input").action == "refuse"


def test_damaged_rules_are_refused(tmp_path):
    write_text(tmp_path / RULES, '{"input": [{"check": "words"}]}')
    with pytest.raises(DataError, match="can't be read"):
        open_guard(tmp_path)


def test_a_classifier_must_be_trained(tmp_path):
    rule = {"check": "classifier", "model": "harm", "action": "refuse"}
    with pytest.raises(NoDataYet, match="not trained yet"):
        find_guard_spec(Guardrails.model_validate({"input": [rule]}), tmp_path)


def test_a_case_adds_to_the_floor_and_removes_nothing():
    floor = {"input": [{**WORDS, "name": "floor"}]}
    for own in (None, {}, {"input": []}, {"input": [WORDS]}, {"output": [WORDS]}):
        merged = Guardrails.model_validate(with_floor(own, floor))
        assert merged.input[0].label == "floor"
    assert [rule.label for rule in Guardrails.model_validate(with_floor({"input": [WORDS]}, floor)).input] == [
        "floor",
        "words",
    ]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"output": [{**WORDS, "action": "route", "to": "other"}]}, "output.words: action route"),
        (
            {"input": [{"check": "topics", "topics": {"a": ["b"]}, "action": "flag"}]},
            "input.topics: topics are compared",
        ),
        ({"input": [{**WORDS, "action": "route", "to": "other"}]}, ""),
    ],
)
def test_rules_that_could_not_work_are_no_case(rules, says):
    """They are refused before a release, not when its first request comes."""
    assert Guardrails.model_validate(rules).problem(has_embedder=False).startswith(says)


def test_topics_are_fine_with_an_embedder():
    rules = {"input": [{"check": "topics", "topics": {"a": ["b"]}, "action": "flag"}]}
    assert Guardrails.model_validate(rules).problem(has_embedder=True) == ""
