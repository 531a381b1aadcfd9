"""From a signal to a decision: ignore, alert, recalibrate, retrain or roll back, with the reasons.

Performance and bias retrain, drift only alerts, too little evidence does neither. A decision depends on the signal, the
case and the earlier attempts, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.monitor.config import Watch
from tasks.monitor.findings import Finding, find_findings, upstream_findings
from tasks.monitor.results import Action, Attempt, Decision, Signal, UpstreamDrift
from tasks.monitor.signal import Window

ORDER = ("retrain", "recalibrate", "alert", "unknown", "fine")


def decide(signal: Signal, config: Watch, history: Sequence[Attempt] = ()) -> Decision:
    """Decide, and write decision.json beside the signal; the same arguments give the same file.

    `history` are the attempts of the case; those later than the signal's as-of are left out.
    """
    findings = find_findings(signal, config)
    action, reasons = _action(signal, config, findings, history)
    reasons += [each.sentence for each in sorted(findings, key=lambda each: ORDER.index(each.severity))]
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


def decide_on_upstream(drift: UpstreamDrift, window: Window, folder: Path, false_alarms: float) -> Decision:
    """Alert on a model that changed behind its address, or ignore it; of a case whose requests are not known."""
    findings = upstream_findings(drift, false_alarms)
    reasons = [each.sentence for each in sorted(findings, key=lambda each: ORDER.index(each.severity))]
    action: Action = "alert" if any(each.severity == "alert" for each in findings) else "ignore"
    evidence = digest_of(drift.model_dump(mode="json"))
    decision = Decision(
        case=window.case,
        release=window.release,
        as_of=window.as_of,
        action=action,
        reasons=tuple(reasons),
        evidence=evidence,
        folder=folder,
        digest=digest_of({"action": action, "reasons": reasons, "evidence": evidence, "to": ""}),
    )
    write_text(folder / "decision.json", decision.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return decision


def _action(
    signal: Signal, config: Watch, findings: Sequence[Finding], history: Sequence[Attempt]
) -> tuple[Action, list[str]]:
    """The action, and the reason when it differs from what the findings call for."""
    severities = {finding.severity for finding in findings}
    if signal.rows_with_outcome < config.min_rows:
        few = (
            f"Insufficient evidence on performance: {signal.rows_with_outcome:,} of {signal.rows:,} predictions have "
            f"an outcome, {config.min_rows:,} are needed."
        )
        return ("alert" if "alert" in severities else "ignore"), [few]
    if not severities & {"retrain", "recalibrate"}:
        # a watched value that can't be computed, with enough rows, deserves an alert
        return ("alert" if severities & {"alert", "unknown"} else "ignore"), []
    if repeated := _acted_on(signal, history):
        return "alert", [repeated]
    predecessor = signal.predecessor
    if "retrain" in severities and predecessor and predecessor.better:
        return "rollback", [
            f"The champion before, {predecessor.release[:12]}, answers the same {predecessor.rows:,} rows better: its "
            f"{predecessor.loss} is {-predecessor.difference:.4f} lower (at least {-predecessor.high:.4f})."
        ]
    if cooldown := _cooldown(signal, config, history):
        return "alert", [cooldown]
    return ("retrain" if "retrain" in severities else "recalibrate"), []


def _acted_on(signal: Signal, history: Sequence[Attempt]) -> str:
    """The outcome of an earlier attempt on the same evidence, if there is one."""
    for attempt in history:
        done, when = attempt.decision, attempt.decision.as_of
        if done.evidence == signal.evidence and attempt.outcome != "begun" and when <= signal.as_of:
            return (
                f"This evidence was acted on as of {_day(when)} ({done.action}: {attempt.outcome}); the same evidence "
                f"does nothing twice. By hand: driftline run {signal.case}."
            )
    return ""


def _cooldown(signal: Signal, config: Watch, history: Sequence[Attempt]) -> str:
    """The end of the cooldown, if it lies ahead; an attempt that was killed has not ended."""
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
