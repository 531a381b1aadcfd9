"""Applies the rules of a stage to a text: the strictest action wins, and a rule that fails refuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.guard.checks.registry import Check, GuardFiles, open_check
from tasks.guard.config import REFUSAL, Guardrails, PersonalDataRule, Rule, Stage
from tasks.guard.results import Context, GuardResult, Outcome, Span
from tasks.guard.subject import Subject

STRICTNESS = ("allow", "flag", "redact", "route", "refuse")


class GuardEngine:
    """The rules of a case or a release, ready to check texts."""

    def __init__(self, guardrails: Guardrails, folder: Path | None = None, embedder: Path | None = None) -> None:
        """`folder` holds a folder for each trained classifier. Raises: DriftlineError when one can't be opened."""
        files = GuardFiles(folder, embedder)
        self.guardrails = guardrails
        self._checks: dict[Stage, list[tuple[Rule, Check]]] = {
            stage: [(rule, open_check(rule, files)) for rule in rules] for stage, rules in guardrails.stages()
        }

    def check(self, text: str, stage: Stage, *, context: Context | None = None) -> GuardResult:
        """Apply all rules of a stage to a text."""
        checks = self._checks[stage]
        if not checks:
            return GuardResult("allow", text)
        subject = Subject(text, context)
        outcomes: list[Outcome] = []
        exempt: list[Span] = []
        for rule, check in checks:
            outcome = _without(_apply(rule, check, subject, stage), exempt)
            if rule.action == "allow" and outcome.is_enforced:
                exempt += outcome.spans
            outcomes.append(outcome)
        return _conclude(text, [rule for rule, _ in checks], outcomes)


def _apply(rule: Rule, check: Check, subject: Subject, stage: Stage) -> Outcome:
    """What a rule finds; its errors, whatever they are, become part of the outcome."""
    started, error, finding = time.perf_counter(), "", None
    try:
        finding = check.find(subject)
    except Exception as failure:
        logging.getLogger("driftline").exception("The guardrail %s failed.", rule.label)
        error = f"{type(failure).__name__}: {failure}"[:200]
    ms = (time.perf_counter() - started) * 1000
    if not error and ms > rule.time_ms:
        error = f"took {ms:.0f} ms of {rule.time_ms:.0f}"
    outcome = Outcome(rule.label, stage, rule.action, rule.mode, fired=finding is not None, ms=ms, error=error)
    if error or finding is None:
        return replace(outcome, fired=False)
    return replace(outcome, spans=finding.spans, score=finding.score, note=finding.note)


def _without(outcome: Outcome, exempt: Sequence[Span]) -> Outcome:
    """An outcome without what an `allow` rule found before."""
    if not exempt or not outcome.spans:
        return outcome
    left = tuple(s for s in outcome.spans if not any(a.start <= s.start and s.end <= a.end for a in exempt))
    return replace(outcome, spans=left, fired=bool(left))


def _conclude(text: str, rules: Sequence[Rule], outcomes: Sequence[Outcome]) -> GuardResult:
    result = GuardResult("allow", text, tuple(outcomes))
    spans: list[tuple[Span, bool]] = []
    for rule, outcome in zip(rules, outcomes, strict=True):
        failed = bool(outcome.error) and rule.mode == "enforce" and rule.on_error == "refuse"
        action = "refuse" if failed else outcome.action
        if not (outcome.is_enforced or failed):
            continue
        if action == "redact":
            restore = isinstance(rule, PersonalDataRule) and rule.restore
            spans += ((span, restore) for span in outcome.spans)
        if STRICTNESS.index(action) > STRICTNESS.index(result.action):
            result = replace(result, action=action, message=rule.message or REFUSAL, to=rule.to)
    return _redacted(result, spans) if spans else result


def _redacted(result: GuardResult, spans: Sequence[tuple[Span, bool]]) -> GuardResult:
    """The text with placeholders; overlapping spans become one."""
    pieces: list[str] = []
    restored: dict[str, str] = {}
    at = 0
    for (kind, start, end), restore in sorted(spans, key=lambda each: each[0].start):
        if end <= at:
            continue
        value = result.text[max(start, at) : end]
        placeholder = f"[{kind.upper()}]"
        if restore and start >= at:
            placeholder = next((name for name, other in restored.items() if other == value), "")
            placeholder = placeholder or f"[{kind.upper()}_{len(restored) + 1}]"
            restored[placeholder] = value
        pieces += (result.text[at : max(start, at)], placeholder if start >= at else "")
        at = end
    return replace(result, text="".join((*pieces, result.text[at:])), restored=tuple(restored.items()))
