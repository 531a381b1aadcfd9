"""The shape of a text: its length, its repetitions, its form as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from tasks.guard.config import LengthRule, RepetitionRule, SchemaRule
from tasks.guard.results import Finding, Span
from tasks.guard.subject import Subject

_RUN = re.compile(r"(.)\1*", re.DOTALL)
WINDOW = 5  # words of a sequence whose repetitions count


class LengthCheck:
    """Finds what lies beyond the limit; of a stream, counted from its beginning."""

    reach = 0

    def __init__(self, rule: LengthRule) -> None:
        self._limit = rule.max_characters

    def find(self, subject: Subject) -> Finding | None:
        start = max(self._limit - subject.context.offset, 0)
        length = len(subject.text)
        return Finding((Span("length", start, length),), note="too long") if length > start else None


class RepetitionCheck:
    """Finds a text that mostly repeats itself, or one character many times."""

    def __init__(self, rule: RepetitionRule) -> None:
        self._run, self._share = rule.max_run, rule.max_share

    def find(self, subject: Subject) -> Finding | None:
        longest = max((len(match[0]) for match in _RUN.finditer(subject.text)), default=0)
        if longest > self._run:
            return Finding(score=float(longest), note=f"one character {longest:,} times")
        words = subject.folded.split()
        total = len(words) - WINDOW + 1
        if total < 10 * WINDOW:
            return None
        distinct = len({tuple(words[at : at + WINDOW]) for at in range(total)})
        share = 1 - distinct / total
        return Finding(score=share, note=f"{share:.0%} of it is repeated") if share > self._share else None


class SchemaCheck:
    """Finds an answer that is not JSON, or does not follow the schema."""

    def __init__(self, rule: SchemaRule) -> None:
        from jsonschema import validators

        schema: Any = rule.json_schema
        self._validator = validators.validator_for(schema)(schema)

    def find(self, subject: Subject) -> Finding | None:
        try:
            value = json.loads(subject.text)
        except ValueError:
            return Finding(note="not JSON")
        error = next(iter(self._validator.iter_errors(value)), None)
        return Finding(note=f"{error.json_path}: {error.validator}") if error else None
