"""Promise: a change of rules is shown as what it is: each added, removed and changed rule with its keys."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.guard.config import Guardrails
from tasks.guard.diff import changed_rules

WORDS: dict[str, Any] = {"check": "words", "words": ["blorbo"], "action": "refuse"}
SECRETS: dict[str, Any] = {"check": "secrets", "action": "redact"}
RANGE: dict[str, Any] = {"check": "range", "action": "flag"}


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ({"input": [WORDS]}, {"input": [WORDS]}, []),
        ({}, {"output": [SECRETS]}, ["+ output.secrets  check: 'secrets', action: 'redact'"]),
        ({"tables": [RANGE]}, {}, ["- tables.range  check: 'range', action: 'flag'"]),
        (
            {"input": [{**WORDS, "mode": "shadow"}]},
            {"input": [WORDS]},
            ["~ input.words  mode 'shadow' -> None"],
        ),
        (
            {"input": [WORDS]},
            {"passages": [WORDS]},
            [
                "+ passages.words  check: 'words', action: 'refuse', words: ['blorbo']",
                "- input.words  check: 'words', action: 'refuse', words: ['blorbo']",
            ],
        ),
    ],
)
def test_each_change_of_a_rule_is_shown(before, after, shown):
    changes = changed_rules(Guardrails.model_validate(before), Guardrails.model_validate(after))
    assert [sorted(str(change).replace(",", "").split()) for change in changes] == [
        sorted(line.replace(",", "").split()) for line in shown
    ]
