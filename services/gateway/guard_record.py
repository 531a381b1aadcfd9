"""What the guardrails did to a call, as its usage record has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tasks.guard.engine import ERROR, outcome_word
from tasks.guard.results import GuardResult, Outcome


@dataclass
class GuardRecord:
    """Counts of a call, by stage, rule and outcome; an outcome is an action, `shadow` or `error`."""

    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    refused_by: str = ""  # stage and rule of the refusal
    route_to: str = ""  # the case or release that a rule sends the call to
    restored: dict[str, str] = field(default_factory=dict)  # placeholders in the request, and their values

    def add(self, result: GuardResult) -> None:
        """Count the rules that found something in a text, or failed."""
        for outcome in result.fired:
            key = (outcome.stage, outcome.rule, outcome_word(outcome))
            self.counts[key] = self.counts.get(key, 0) + max(1, len(outcome.spans))
        self.restored.update(result.restored)
        if result.action == "route":
            self.route_to = result.to
        if result.action == "refuse" and not self.refused_by:
            self.refused_by = refusing_rule(result.fired)

    def merge(self, counts: Iterable[tuple[tuple[str, str, str], int]]) -> None:
        """Add the counts of a cached answer, or of the passages."""
        for key, count in counts:
            self.counts[key] = self.counts.get(key, 0) + count

    def restore(self, text: str) -> str:
        """Replace the placeholders of the request by their values."""
        for placeholder, value in self.restored.items():
            text = text.replace(placeholder, value)
        return text

    @property
    def has_errors(self) -> bool:
        return any(outcome == ERROR for _, _, outcome in self.counts)

    def json(self) -> dict[str, Any] | None:
        """For the usage record; None where no rule found anything."""
        if not self.counts:
            return None
        rows = [
            {"stage": stage, "rule": rule, "outcome": outcome, "count": count}
            for (stage, rule, outcome), count in sorted(self.counts.items())
        ]
        return {"outcomes": rows} | ({"refused_by": self.refused_by} if self.refused_by else {})


def refusing_rule(outcomes: Iterable[Outcome]) -> str:
    """Stage and rule of the first outcome that refuses."""
    return next(
        (
            f"{each.stage}/{each.rule}"
            for each in outcomes
            if each.error or (each.is_enforced and each.action == "refuse")
        ),
        "",
    )
