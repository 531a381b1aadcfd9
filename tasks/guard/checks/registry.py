"""The table of all checks: the class of a rule, and how its check is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.core.errors import CaseError
from tasks.guard.checks.characters import CharactersCheck, EncodedCheck
from tasks.guard.checks.classifier import ClassifierCheck
from tasks.guard.checks.conversation import ConversationCheck
from tasks.guard.checks.injection import InjectionCheck
from tasks.guard.checks.personal_data import PersonalDataCheck, SecretsCheck
from tasks.guard.checks.shape import LengthCheck, RepetitionCheck, SchemaCheck
from tasks.guard.checks.sources import CitationCheck, CodeCheck, GroundednessCheck, LinksCheck
from tasks.guard.checks.topics import LanguageCheck, TopicsCheck
from tasks.guard.checks.words import WordsCheck
from tasks.guard.config import Rule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject


class Check(Protocol):
    """Finds what a rule is about."""

    def find(self, subject: Subject) -> Finding | None:
        """What was found; None: nothing."""
        ...


@dataclass(frozen=True)
class GuardFiles:
    """The files beside the rules: trained classifiers by name in `folder`, and the release's embedder."""

    folder: Path | None = None
    embedder: Path | None = None
    tokenizer: Path | None = None  # of the embedder; None: beside it


# By `check` of a rule. A check that reads files takes (rule, files); the others take the rule.
CHECKS: dict[str, Callable[[Any], Check]] = {
    "personal_data": PersonalDataCheck,
    "secrets": SecretsCheck,
    "words": WordsCheck,
    "injection": InjectionCheck,
    "characters": CharactersCheck,
    "encoded": EncodedCheck,
    "length": LengthCheck,
    "repetition": RepetitionCheck,
    "language": LanguageCheck,
    "links": LinksCheck,
    "code": CodeCheck,
    "schema": SchemaCheck,
    "groundedness": GroundednessCheck,
    "citation": CitationCheck,
    "conversation": ConversationCheck,
}
CHECKS_WITH_FILES: dict[str, Callable[[Any, GuardFiles], Check]] = {
    "classifier": lambda rule, files: ClassifierCheck(rule, files.folder),
    "topics": lambda rule, files: TopicsCheck(rule, files.embedder, files.tokenizer),
}


def open_check(rule: Rule, files: GuardFiles) -> Check:
    """The check of a rule. Raises: CaseError for one that this version does not have."""
    if rule.check in CHECKS:
        return CHECKS[rule.check](rule)
    if rule.check in CHECKS_WITH_FILES:
        return CHECKS_WITH_FILES[rule.check](rule, files)
    raise CaseError(f"There is no check {rule.check!r}.", allowed=", ".join((*CHECKS, *CHECKS_WITH_FILES)))
