"""Applies the rules of a stage to a text: the strictest action wins, and a rule that fails refuses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.guard.checks.registry import Check, GuardFiles, open_check
from tasks.guard.config import REFUSAL, Guardrails, PersonalDataRule, Rule, Stage
from tasks.guard.results import Context, GuardResult, Outcome, Span
from tasks.guard.subject import Subject
from tasks.guard.tables import TrainingData, check_rows

STRICTNESS = ("allow", "flag", "redact", "route", "refuse")
ERROR, SHADOW = "error", "shadow"  # outcomes beside the actions
INLINE = 1_500  # characters that rules read in the event loop, in less than a millisecond
THREADS = 4
REACH = 96  # characters that a check sees behind a place, unless it names a number


class _Threads:
    """The threads of all engines of a process, started by the first long text."""

    pool: ThreadPoolExecutor | None = None

    @classmethod
    def get(cls) -> ThreadPoolExecutor:
        cls.pool = cls.pool or ThreadPoolExecutor(THREADS, "guard")
        return cls.pool


class GuardEngine:
    """The rules of a case or a release, ready to check texts."""

    def __init__(
        self, guardrails: Guardrails, folder: Path | None = None, embedder: tuple[Path, Path | None] | None = None
    ) -> None:
        """`folder` holds a folder for each trained classifier; `embedder` is its folder, and its tokenizer's.

        Raises: DriftlineError when one can't be opened.
        """
        files = GuardFiles(folder, *(embedder or ()))
        self.guardrails = guardrails
        self._known = TrainingData.read(folder) if guardrails.tables else TrainingData()
        self._checks: dict[Stage, list[tuple[Rule, Check]]] = {
            stage: [(rule, open_check(rule, files)) for rule in rules] for stage, rules in guardrails.stages()
        }

    def check(self, text: str, stage: Stage, *, context: Context | None = None) -> GuardResult:
        """Apply all rules of a stage to a text."""
        subject = Subject(text, context)
        applied = [_apply(rule, check, subject, stage) for rule, check in self._checks[stage]]
        return self._conclude(text, stage, applied)

    async def check_async(self, text: str, stage: Stage, *, context: Context | None = None) -> GuardResult:
        """As `check`, without holding up the event loop: what takes long runs in threads, side by side."""
        subject, is_long = Subject(text, context), len(text) > INLINE
        applied = await asyncio.gather(
            *(
                _apply_in_thread(rule, check, subject, stage)
                if is_long or getattr(check, "is_slow", False)
                else _apply_now(rule, check, subject, stage)
                for rule, check in self._checks[stage]
            )
        )
        return self._conclude(text, stage, applied)

    def check_rows(self, rows: Any) -> GuardResult:
        """Apply the rules for tables to the rows of a request."""
        return check_rows(rows, self.guardrails.tables, self._known)

    def rules(self, stage: Stage) -> tuple[Rule, ...]:
        return self.guardrails.rules(stage)

    @property
    def needs_passages(self) -> bool:
        """Whether a rule for the answer reads the passages that it comes from."""
        return any(getattr(check, "needs_passages", False) for _, check in self._checks["output"])

    def split(self, stage: Stage) -> tuple[GuardEngine, GuardEngine]:
        """Two engines for a stage: of the rules that find places, and of those that judge the text whole."""
        return self._only(stage, spans=True), self._only(stage, spans=False)

    def _only(self, stage: Stage, *, spans: bool) -> GuardEngine:
        chosen = [(rule, check) for rule, check in self._checks[stage] if rule.is_local == spans]
        part = GuardEngine(Guardrails())
        part.guardrails = Guardrails().model_copy(update={stage: tuple(rule for rule, _ in chosen)})
        part._checks = {**part._checks, stage: chosen}
        return part

    def can_change(self, stage: Stage) -> bool:
        """Whether a rule of the stage may refuse or redact."""
        return any(
            r.mode == "enforce" and r.action in ("refuse", "route", "redact") for r in self.guardrails.rules(stage)
        )

    def reach(self, stage: Stage) -> int:
        """The characters behind a place that the rules must see to judge it."""
        return max((getattr(check, "reach", REACH) for _, check in self._checks[stage]), default=0)

    def _conclude(self, text: str, stage: Stage, applied: Sequence[Outcome]) -> GuardResult:
        rules = self.guardrails.rules(stage)
        outcomes: list[Outcome] = []
        exempt: list[Span] = []
        for rule, outcome in zip(rules, applied, strict=True):
            outcomes.append(left := _without(outcome, exempt))
            if rule.action == "allow" and left.is_enforced:
                exempt += left.spans
        return conclude(text, rules, outcomes)


async def _apply_now(rule: Rule, check: Check, subject: Subject, stage: Stage) -> Outcome:
    return _apply(rule, check, subject, stage)


async def _apply_in_thread(rule: Rule, check: Check, subject: Subject, stage: Stage) -> Outcome:
    """A check that overruns its time ends in its thread; nobody waits for it."""
    work = asyncio.get_running_loop().run_in_executor(_Threads.get(), _apply, rule, check, subject, stage)
    try:
        return await asyncio.wait_for(asyncio.shield(work), rule.time_ms / 1000)
    except TimeoutError:
        error = f"took more than {rule.time_ms:.0f} ms"
        return Outcome(rule.label, stage, rule.action, rule.mode, fired=False, ms=rule.time_ms, error=error)


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


def conclude(text: str, rules: Sequence[Rule], outcomes: Sequence[Outcome]) -> GuardResult:
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


def outcome_word(outcome: Outcome) -> str:
    """The word for an outcome in counts: its action, `shadow` or `error`."""
    if outcome.error:
        return ERROR
    return SHADOW if outcome.mode == "shadow" else outcome.action


def masked(result: GuardResult, text: str) -> str:
    """A checked text as a log may show it: without the places that any rule found, whatever its action."""
    spans = [(span, False) for outcome in result.fired for span in outcome.spans if outcome.action != "allow"]
    return _redacted(replace(result, text=text), spans).text if spans else text


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
