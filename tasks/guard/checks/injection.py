"""Prompt injection and jailbreak by heuristics: what the text asks the model to do, in words near each other.

Words are read, not patterns of characters: each word is looked up once, so the time is linear. A trained classifier
(`check: classifier`) finds more; this one needs no model, and its reasons can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tasks.guard.checks import injection_words as words_of
from tasks.guard.config import InjectionRule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject

REACH = 8  # words between the parts of a demand
# Words of which each letter stands alone leave no space between words.
_SQUEEZED = re.compile(
    r"(?:ignor|disregard|forget|overrid|bypass)(?:e|ing)?(?:all|any|every|of|the|your|my|these|those){0,4}"
    r"(?:previous|prior|above|earlier|instruction|rules)|(?:reveal|show|print|repeat)(?:me|the|your|my){0,3}systemprompt"
)
_WORD = re.compile(r"[^\W\d_]+")


class InjectionCheck:
    """Reads the text in all its forms, decoded ones too."""

    def __init__(self, rule: InjectionRule) -> None:
        pass

    def find(self, subject: Subject) -> Finding | None:
        lowered = subject.folded
        if mark := next((mark for mark in words_of.MARKS if mark in lowered), None):
            return Finding(note=f"mark of a prompt format: {mark}")
        for reading in subject.readings:
            if reason := next(_demands(reading), None):
                return Finding(note=reason)
        if subject.joined != subject.readings[0] and _SQUEEZED.search(subject.joined.replace(" ", "")):
            return Finding(note="asks to ignore instructions, in spaced letters")
        return None


def _demands(text: str) -> Iterator[str]:
    """What the text demands of a model against its instructions."""
    if phrase := next((phrase for phrase in words_of.PHRASES if phrase in text), None):
        yield f"phrase: {phrase}"
    words = _WORD.findall(text)
    for at, word in enumerate(words):
        if word in words_of.IGNORE and _follows(words, at, (words_of.EARLIER, words_of.ORDERS)):
            yield "asks to ignore instructions"
        elif word in words_of.REVEAL and _follows(words, at, (words_of.HIDDEN, words_of.HIDDEN_ORDERS)):
            yield "asks for hidden instructions"
        elif word in words_of.BECOME:
            ahead = words[at + 1 : at + 1 + REACH]
            if not words_of.FREE.isdisjoint(ahead):
                yield "asks for a role without rules"
            elif _follows(words, at, (words_of.WITHOUT, words_of.LIMITS)):
                yield "asks for answers without limits"


def _follows(words: Sequence[str], at: int, sets: Sequence[frozenset[str]]) -> bool:
    """Whether a word of each set follows, in order, within REACH words."""
    end = min(len(words), at + 1 + REACH)
    for each in sets:
        at = next((index for index in range(at + 1, end) if words[index] in each), -1)
        if at < 0:
            return False
    return True
