"""What evaluation returns, and the champion that it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.config import Result
from tasks.core.places import Places
from tasks.train.classes import Classes


@dataclass(frozen=True)
class Champion:
    """The release that a candidate is compared with."""

    model: Path | None  # its model file; None: the file is missing
    digest: str | None = None


class Criterion(Result):
    """One line of a verdict."""

    name: str
    observed: float | None  # None: could not be computed, which fails
    required: str  # such as ">= 0.7"
    passed: bool
    note: str = ""
    waiver: str = ""  # a person's reason why it passes all the same
    blocking: bool = True  # False: a warning, which the decision does not depend on
    conclusive: bool = True  # False: when it fails, more rows could change that
    repeatable: bool = True  # False: a timing; left out of digests


class Verdict(Result):
    decision: Literal["promote", "reject", "insufficient evidence"]
    criteria: tuple[Criterion, ...]
    metrics: dict[str, Any]  # {"overall": {...}, "by_month": {month: {...}}, "by_slice": {column: {value: {...}}}}
    data: str = ""  # the rows of each side, in a sentence
    champion: str | None  # digest of the release that the candidate is compared with
    classes: Classes = ()  # of a classification, in the order of its answers
    scores: Path  # Parquet of the hold-out: frame columns + prediction, of three classes or more also score_CLASS
    digest: str  # over decision and repeatable criteria


@dataclass(frozen=True)
class EvaluationContext:
    """What a candidate is evaluated beside: the places, the champion, and criteria that were measured before."""

    places: Places
    champion: Champion = Champion(None)
    measured: tuple[Criterion, ...] = ()  # of the case's guardrails
