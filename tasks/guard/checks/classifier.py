"""A trained classifier as a check of texts."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import NoDataYet
from tasks.guard.classifier import load_classifier
from tasks.guard.config import ClassifierRule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject


class ClassifierCheck:
    """Finds a text whose score reaches the threshold, in any of its readings."""

    def __init__(self, rule: ClassifierRule, folder: Path | None) -> None:
        if folder is None:
            raise NoDataYet("A guardrail's classifier has no folder.", where=rule.label)
        self._classifier = load_classifier(folder / rule.model)
        own = self._classifier.threshold(rule.false_alarm_rate)
        self._threshold = own if rule.threshold is None else rule.threshold

    def find(self, subject: Subject) -> Finding | None:
        score = self._classifier.score_readings(subject.readings)
        return Finding(score=score, note=f"score {score:.2f}") if score >= self._threshold else None
