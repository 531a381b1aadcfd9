"""Promise: however a stream is cut, it passes what a check of the whole text passes, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine
from tasks.guard.stream import GuardedText

RULES: list[dict[str, Any]] = [
    {"check": "personal_data"},
    {"check": "secrets"},
    {"check": "words", "words": ["blorbo", "Acme Corp International"]},
    {"check": "links", "allowed": ["example.org"]},
    {"check": "code"},
]
SENTENCE = """the flight from JFK to LAX leaves at noon and you can check in online please ask your airline for more I
is on Gate B6 DL 404 costs 120 dollars 3.5 hours \u00fcber na\u00efve \u6f22\u5b57 \u00e9t\u00e9 A https://example.org/x"""
PLAIN = SENTENCE.split()
FORBIDDEN = [
    "ann.lee@example.org",
    "+1 212 555 0187",
    "(212) 555-0187",
    "4111 1111 1111 1111",
    "5500-0000-0000-0004",
    "GB29 NWBK 6016 1331 9268 19",
    "DE89370400440532013000",
    "FR14 2004 1010 0505 0001 3M02 606",
    "password is hunter2x9",
    "sk-abcdefghijklmnop1234567890abcdEFGH",
    "Bearer abcdefghij1234567890",
    "postgres://u:secretpw@host/db",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\nxyz abc def\n-----END RSA PRIVATE KEY-----",
    "aws key wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYab",
    "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYab is what",
    "amazon",
    "blorbo",
    "bl\u200borbo",
    "Acme Corp  International",
    "\\u0061nn@example.org",
    "4111&#49;11111111111",
    "https://evil.example/x",
    "\n```\nrm -rf one two\n```\n",
]


def make_text(chance: random.Random) -> str:
    words = []
    for _ in range(chance.randint(1, 120)):
        kind = chance.random()
        number = str(chance.randint(0, 10 ** chance.randint(1, 12)))
        plain = chance.choice(PLAIN) + chance.choice(["", "", "", ".", ",", "!"])
        words.append(chance.choice(FORBIDDEN) if kind < 0.04 else number if kind < 0.08 else plain)
    return "".join(word + chance.choice([" ", " ", " ", "\n", "  ", "\n\n"]) for word in words)


def pieces(text: str, chance: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = chance.choice([1, 1, 2, 3, 5, 8, 40, 400])
        yield text[at : at + size]
        at += size


def engine(action: str, *rules: dict[str, Any]) -> GuardEngine:
    return GuardEngine(Guardrails.model_validate({"output": [{**rule, "action": action} for rule in rules or RULES]}))


def streamed(guard: GuardedText, text: str, chance: random.Random) -> str:
    return "".join([*(guard.push(piece) for piece in pieces(text, chance)), guard.finish()])


def compare(count: int, seed: int) -> None:
    """Compare streams with checks of the whole text."""
    chance = random.Random(seed)
    redacting, refusing = engine("redact"), engine("refuse")
    for _ in range(count):
        text = make_text(chance)
        assert streamed(GuardedText(redacting), text, chance) == redacting.check(text, "output").text
        whole, guard = refusing.check(text, "output"), GuardedText(refusing)
        sent = streamed(guard, text, chance)
        assert (guard.refusal is not None) == (whole.action == "refuse")
        assert text.startswith(sent)
        first = min((span.start for outcome in whole.outcomes for span in outcome.spans), default=len(text))
        assert len(sent) <= first


def test_streams_pass_what_the_whole_text_would():
    compare(100, 0)


@pytest.mark.long
def test_ten_thousand_streams_pass_what_the_whole_would():
    compare(10_000, 1)


def test_text_is_sent_while_it_arrives():
    """Held back are the last words, not the answer."""
    guard = GuardedText(engine("redact"))
    text = "The boat leaves the harbour at noon and comes back with the tide. " * 20
    behind = [len(text[: at + 1]) - len(sent) for at, sent in enumerate(_sent_after_each(guard, text))]
    assert max(behind) < 130


def _sent_after_each(guard: GuardedText, text: str) -> Iterator[str]:
    sent = ""
    for letter in text:
        sent += guard.push(letter)
        yield sent


def test_a_long_answer_ends_where_it_becomes_too_long():
    guard = GuardedText(engine("refuse", {"check": "length", "max_characters": 300}))
    sent = streamed(guard, "word " * 200, random.Random(0))
    assert guard.refusal is not None
    assert 150 < len(sent) <= 300


def test_a_failing_rule_ends_the_stream(monkeypatch):
    guard = GuardedText(engine("redact", {"check": "words", "words": ["blorbo"]}))
    text = "The boat leaves the harbour at noon and comes back with the tide. " * 20
    sent = guard.push(text[:600])

    def broken(*_: object) -> None:
        raise RuntimeError("no disk")

    monkeypatch.setattr("tasks.guard.checks.words.WordsCheck.find", broken)
    assert guard.push(text[600:]) == ""
    assert guard.finish() == ""
    assert guard.refusal is not None
    assert text.startswith(sent)


def test_outcomes_are_counted_once():
    guard = GuardedText(engine("redact", {"check": "personal_data"}))
    text = "Write to ann@example.org. " + "The boat leaves the harbour at noon. " * 30
    streamed(guard, text, random.Random(0))
    found = [outcome for result in guard.results for outcome in result.fired]
    assert sum(len(outcome.spans) for outcome in found) == 1
