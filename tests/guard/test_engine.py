"""The rules of a stage: actions, modes, the strictest one, and rules that fail."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine

EMAIL = {"check": "personal_data", "kinds": ["email"], "action": "redact"}
WORD = {"check": "words", "words": ["blorbo"], "action": "refuse", "message": "Not this."}


def engine(*rules: dict[str, Any], stage: str = "input") -> GuardEngine:
    return GuardEngine(Guardrails.model_validate({stage: rules}))


def test_a_text_without_findings_is_unchanged():
    result = engine(EMAIL, WORD).check("Flights from JFK, please.", "input")
    assert (result.action, result.text, result.fired) == ("allow", "Flights from JFK, please.", ())


def test_found_values_are_redacted():
    result = engine(EMAIL).check("Write to ann@example.org.", "input")
    assert (result.action, result.text) == ("redact", "Write to [EMAIL].")


def test_the_strictest_action_wins():
    result = engine(EMAIL, WORD).check("blorbo, ann@example.org", "input")
    assert (result.action, result.message) == ("refuse", "Not this.")
    assert [outcome.rule for outcome in result.fired] == ["personal_data", "words"]


def test_a_rule_in_shadow_mode_only_counts():
    result = engine({**WORD, "mode": "shadow"}).check("blorbo", "input")
    assert (result.action, result.text) == ("allow", "blorbo")
    assert [(outcome.rule, outcome.mode) for outcome in result.fired] == [("words", "shadow")]


def test_placeholders_stand_for_values():
    rule = {**EMAIL, "restore": True}
    result = engine(rule).check("ann@example.org, bob@example.org, ann@example.org", "input")
    assert result.text == "[EMAIL_1], [EMAIL_2], [EMAIL_1]"
    assert dict(result.restored) == {"[EMAIL_1]": "ann@example.org", "[EMAIL_2]": "bob@example.org"}


def test_allowed_places_are_exempt():
    allowed = {"check": "words", "words": ["help@example.org"], "action": "allow", "name": "ours_is_public"}
    result = engine(allowed, EMAIL).check("help@example.org or ann@example.org", "input")
    assert result.text == "help@example.org or [EMAIL]"


@pytest.mark.parametrize(("on_error", "action"), [("refuse", "refuse"), ("allow", "allow")])
def test_a_rule_that_fails_refuses(monkeypatch, on_error, action):
    """Unless the case says otherwise; then the text counts as unchecked."""
    guard = engine({**WORD, "on_error": on_error})

    def broken(*_: object) -> None:
        raise RuntimeError("no disk")

    monkeypatch.setattr("tasks.guard.checks.words.WordsCheck.find", broken)
    result = guard.check("anything", "input")
    assert result.action == action
    assert [outcome.error for outcome in result.fired] == ["RuntimeError: no disk"]


def test_a_rule_that_overruns_its_time_refuses():
    result = engine({**WORD, "time_ms": 1e-6}).check("anything", "input")
    assert (result.action, result.message) == ("refuse", "Not this.")
    assert "took" in result.fired[0].error


@pytest.mark.parametrize(
    "text",
    [
        "blorbo",
        "BLORBO",
        "bl\u200borbo",
        "bl\u043erb\u043e",  # Cyrillic
        "\uff42\uff4c\uff4f\uff52\uff42\uff4f",  # full width
        "bl&#111;rbo",
        "b\u0301lorbo",
    ],
    ids=["plain", "case", "invisible", "look-alikes", "full width", "html", "combining"],
)
def test_disguised_words_are_found(text):
    assert engine(WORD).check(f"I like {text}.", "input").action == "refuse"


def test_parts_of_words_count_only_where_declared():
    assert engine(WORD).check("blorbos", "input").action == "allow"
    assert engine({**WORD, "parts": True}).check("blorbos", "input").action == "refuse"


def test_wrong_rules_name_every_mistake():
    rules = [{"check": "injection", "action": "redact"}, {"check": "wurds", "action": "refuse"}, WORD, WORD]
    with pytest.raises(ValueError, match=r"(?s)needs a rule that finds places.*wurds"):
        Guardrails.model_validate({"input": rules})
    with pytest.raises(ValueError, match="two rules are called words"):
        Guardrails.model_validate({"input": [WORD, WORD]})
    with pytest.raises(ValueError, match="belong together"):
        Guardrails.model_validate({"input": [{**WORD, "action": "route"}]})
