"""Personal data and secrets, by form and check digits."""

from __future__ import annotations

from tasks.guard.config import PersonalDataRule, SecretsRule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject


class PersonalDataCheck:
    """Finds the kinds of a rule."""

    def __init__(self, rule: PersonalDataRule) -> None:
        self._kinds = frozenset(rule.kinds)

    def find(self, subject: Subject) -> Finding | None:
        spans = tuple(span for span in subject.spans if span.kind in self._kinds)
        return Finding(spans, note=", ".join(sorted({span.kind for span in spans}))) if spans else None


class SecretsCheck:
    """Finds keys, tokens, passwords and private keys."""

    def __init__(self, rule: SecretsRule) -> None:
        pass

    def find(self, subject: Subject) -> Finding | None:
        return Finding(subject.secrets) if subject.secrets else None
