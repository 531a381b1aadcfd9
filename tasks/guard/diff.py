"""What differs between two sets of rules: a rule is known by its stage and label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tasks.guard.config import Guardrails


@dataclass(frozen=True)
class RuleChange:
    """One rule that was added, removed or changed, with the keys that differ."""

    stage: str
    rule: str
    change: Literal["added", "removed", "changed"]
    keys: dict[str, tuple[Any, Any]]  # old and new value; of an added or removed rule, those that are set

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.change]
        values = ", ".join(
            f"{key} {old!r} -> {new!r}"
            if self.change == "changed"
            else f"{key}: {new if self.change == 'added' else old!r}"
            for key, (old, new) in self.keys.items()
        )
        return f"{sign} {self.stage}.{self.rule}  {values}"


def changed_rules(old: Guardrails, new: Guardrails) -> list[RuleChange]:
    """The differences, by stage in the order of the new rules; removed ones last."""
    before, after = _by_label(old), _by_label(new)
    changes = []
    for place in [*after, *(place for place in before if place not in after)]:
        was, becomes = before.get(place, {}), after.get(place, {})
        keys = {key: (was.get(key), becomes.get(key)) for key in {**was, **becomes} if was.get(key) != becomes.get(key)}
        if keys:
            change: Literal["added", "removed", "changed"] = (
                "changed" if was and becomes else "added" if becomes else "removed"
            )
            changes.append(RuleChange(*place, change, keys))
    return changes


def _by_label(guardrails: Guardrails) -> dict[tuple[str, str], dict[str, Any]]:
    """The keys of each rule that differ from their defaults."""
    listed = [*guardrails.stages(), ("tables", guardrails.tables)]
    return {
        (stage, rule.label): {"check": rule.check, **rule.model_dump(mode="json", exclude_defaults=True)}
        for stage, rules in listed
        for rule in rules
    }
