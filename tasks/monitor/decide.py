"""From a signal to a decision: ignore, alert, recalibrate, retrain or roll back, with the reasons.

Performance and bias retrain, drift only alerts, too little evidence does neither. A decision depends on the signal,
the case and what was attempted before, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.monitor.config import Watch
from tasks.monitor.findings import Finding, find_findings
from tasks.monitor.results import Action, Attempt, Decision, Signal

ORDER = ("retrain", "recalibrate", "alert", "unknown", "fine")


def decide(signal: Signal, config: Watch, history: Sequence[Attempt] = ()) -> Decision:
    """Decide, and write decision.json beside the signal; the same arguments give the same file.

    `history` are the attempts of the case; those later than the signal's as-of are not known at its moment.
    """
    findings = find_findings(signal, config)
    action, reasons = _action(signal, config, findings, history)
    reasons += [found.sentence for found in sorted(findings, key=lambda found: ORDER.index(found.effect))]
    to = signal.predecessor.release if signal.predecessor and action == "rollback" else ""
    decision = Decision(
        case=signal.case,
        release=signal.release,
        as_of=signal.as_of,
        action=action,
        reasons=tuple(reasons),
        evidence=signal.evidence,
        to=to,
        folder=signal.folder,
        digest=digest_of({"action": action, "reasons": reasons, "evidence": signal.evidence, "to": to}),
    )
    write_text(signal.folder / "decision.json", decision.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return decision


def _action(
    signal: Signal, config: Watch, findings: Sequence[Finding], history: Sequence[Attempt]
) -> tuple[Action, list[str]]:
    """What is to be done, and why if that is not what the findings themselves say."""
    effects = {found.effect for found in findings}
    if signal.rows_with_outcome < config.min_rows:
        few = (
            f"Insufficient evidence on performance: {signal.rows_with_outcome:,} of {signal.rows:,} predictions have "
            f"an outcome, {config.min_rows:,} are needed."
        )
        return ("alert" if "alert" in effects else "ignore"), [few]
    if not effects & {"retrain", "recalibrate"}:
        # what is watched and can't be computed, with all the rows it needs, is no good news
        return ("alert" if effects & {"alert", "unknown"} else "ignore"), []
    if acted := _acted_on(signal, history):
        return "alert", [acted]
    rival = signal.predecessor
    if "retrain" in effects and rival and rival.better:
        return "rollback", [
            f"The champion before, {rival.release[:12]}, answers the same {rival.rows:,} rows better: its {rival.loss} "
            f"is {-rival.difference:.4f} lower (at least {-rival.high:.4f})."
        ]
    if cooling := _cools_down(signal, config, history):
        return "alert", [cooling]
    return ("retrain" if "retrain" in effects else "recalibrate"), []


def _acted_on(signal: Signal, history: Sequence[Attempt]) -> str:
    """What came of this very evidence, if it has been acted on."""
    for attempt in history:
        done, when = attempt.decision, attempt.decision.as_of
        if done.evidence == signal.evidence and attempt.outcome != "begun" and when <= signal.as_of:
            return (
                f"This evidence was acted on as of {_day(when)} ({done.action}: {attempt.outcome}); the same evidence "
                f"does nothing twice. By hand: driftline run {signal.case}."
            )
    return ""


def _cools_down(signal: Signal, config: Watch, history: Sequence[Attempt]) -> str:
    """Until when nothing is attempted again, if that lies ahead; an attempt that was killed is not over."""
    over = [each.decision for each in history if each.outcome != "begun" and each.decision.as_of <= signal.as_of]
    last = max(over, key=lambda decision: decision.as_of, default=None)
    if last is None or signal.as_of >= last.as_of + config.retrain.cooldown:
        return ""
    until = last.as_of + config.retrain.cooldown
    return (
        f"Nothing more is attempted until {_day(until)}: the last attempt ({last.action}) was as of {_day(last.as_of)}."
    )


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
