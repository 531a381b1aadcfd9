"""Search in a knowledge base whose passages pass the release's rules before anything reads them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.guard.engine import GuardEngine, outcome_word
from tasks.guard.results import GuardResult
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import Hit

if TYPE_CHECKING:
    from tasks.language.embedder import Embedder

SPARE = 5  # further passages that are searched, in place of those that a rule drops


class GuardedSearch(KnowledgeSearch):
    """Drops a passage that a rule refuses, and redacts others. Passages never change, so each is checked once."""

    def __init__(self, folder: Path, embedder: Embedder, engine: GuardEngine, *, word_weight: float = 0.5) -> None:
        super().__init__(folder, embedder, word_weight=word_weight)
        self._engine = engine
        self._checked: dict[str, GuardResult] = {}
        self._counts: Counter[tuple[str, str]] = Counter()  # by rule and outcome, since the last `take_counts`

    def search(
        self, question: str, *, count: int = 5, method: str = "hybrid", labels: frozenset[str] | None = None
    ) -> list[Hit]:
        if not self._engine.rules("passages"):
            return super().search(question, count=count, method=method, labels=labels)
        passed: list[Hit] = []
        for hit in super().search(question, count=count + SPARE, method=method, labels=labels):
            if len(passed) == count:
                break
            result = self._check(hit)
            for outcome in result.fired:
                self._counts[outcome.rule, outcome_word(outcome)] += 1
            if result.action != "refuse":
                passed.append(replace(hit, passage=replace(hit.passage, text=result.text)))
        return passed

    def take_counts(self) -> list[tuple[str, str, int]]:
        """What the rules found since the last call of this method: rule, outcome and count."""
        counts = [(rule, outcome, count) for (rule, outcome), count in sorted(self._counts.items())]
        self._counts.clear()
        return counts

    def _check(self, hit: Hit) -> GuardResult:
        """The result for a passage with its title and heading, which are in the prompt, too."""
        name = hit.passage.passage_id
        if name not in self._checked:
            result = self._engine.check(hit.passage.text, "passages")
            around = self._engine.check(f"{hit.passage.title}\n{hit.passage.heading}", "passages")
            if around.action != "allow":  # nothing to cite: it is dropped
                result = replace(around, action="refuse") if around.action in ("refuse", "redact") else around
            if any(outcome.error for outcome in result.outcomes):
                return result
            self._checked[name] = result
        return self._checked[name]
