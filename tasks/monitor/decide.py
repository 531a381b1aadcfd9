"""From a signal to a decision: performance and bias retrain, drift only alerts, too little evidence does neither."""

from __future__ import annotations

from typing import Literal

from tasks.evaluate.metrics import worse_by
from tasks.foundation.config import digest_of
from tasks.foundation.files import write_text
from tasks.monitor.config import AnswerAlert, TableAlert, Watch
from tasks.monitor.results import Decision, Signal

Effect = Literal["fine", "unknown", "alert", "retrain"]


def decide(signal: Signal, config: Watch) -> Decision:
    """Decide, and write decision.json beside the signal; the same signal and thresholds give the same file."""
    findings = [*_performance(signal, config), *_proxies(signal, config), *_drift(signal, config)]
    effects = {effect for effect, _ in findings}
    enough = signal.rows_with_outcome >= config.min_rows
    action: Literal["ignore", "alert", "retrain"] = "ignore"
    if "retrain" in effects:
        action = "retrain"
    elif "alert" in effects or ("unknown" in effects and enough):
        action = "alert"  # what is watched and can't be computed, with all the rows it needs, is no good news
    order: dict[Effect, int] = {"retrain": 0, "alert": 1, "unknown": 2, "fine": 3}
    reasons = [sentence for _, sentence in sorted(findings, key=lambda finding: order[finding[0]])]
    if not enough:
        reasons.insert(
            0,
            f"Insufficient evidence on performance: {signal.rows_with_outcome:,} of {signal.rows:,} predictions have "
            f"an outcome, {config.min_rows:,} are needed.",
        )
    told = {"action": action, "reasons": reasons, "evidence": signal.digest}
    decision = Decision(
        case=signal.case,
        release=signal.release,
        as_of=signal.as_of,
        action=action,
        reasons=tuple(reasons),
        evidence=signal.digest,
        folder=signal.folder,
        digest=digest_of(told),
    )
    write_text(signal.folder / "decision.json", decision.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return decision


def _performance(signal: Signal, config: Watch) -> list[tuple[Effect, str]]:
    """Judge the watched metric and the bias, if there are outcomes enough to say anything."""
    if signal.rows_with_outcome < config.min_rows:
        return []
    watched = config.retrain
    now, then = signal.metrics.get(watched.metric), signal.reference.get(watched.metric)
    found: list[tuple[Effect, str]] = []
    if now is None or then is None:
        where = "in this window" if now is None else "on the hold-out"
        found.append(("unknown", f"{watched.metric} could not be computed {where}."))
    else:
        worse = worse_by(watched.metric, now, then)
        told = f"{_number(abs(worse))} {'worse' if worse > 0 else 'better'}"
        found.append(
            (
                "retrain" if worse > watched.worse_by else "fine",
                f"{watched.metric} is {_number(now)} against {_number(then)} on the hold-out: {told}, "
                f"allowed {_number(watched.worse_by)} worse.",
            )
        )
    if watched.bias is not None:
        if signal.bias is None:
            found.append(("unknown", "The bias could not be computed."))
        else:
            of = "" if signal.task == "classification" else " of the mean |outcome|"
            found.append(
                (
                    "retrain" if abs(signal.bias) > watched.bias else "fine",
                    f"Predictions are {_number(abs(signal.bias))}{of} too {'high' if signal.bias > 0 else 'low'} on "
                    f"average, allowed {_number(watched.bias)}.",
                )
            )
    return found


def _proxies(signal: Signal, config: Watch) -> list[tuple[Effect, str]]:
    """Judge what answers tell without the right ones."""
    found: list[tuple[Effect, str]] = []
    if not isinstance(config.alert, AnswerAlert):
        return found
    shares = config.alert.dearer_by
    for metric, allowed in (*config.alert.worse_by.items(), *shares.items()):
        now, then = signal.proxies.get(metric), signal.proxies_then.get(metric)
        if now is None or then is None:
            found.append(("unknown", f"{metric} of the answers could not be computed."))
            continue
        sides = f"{metric} of all answers is {_number(now)} against {_number(then)}"
        if metric in shares:
            found.append(("alert" if now > then * (1 + allowed) else "fine", f"{sides}, allowed {allowed:.0%} more."))
            continue
        worse = worse_by(metric, now, then)
        told = f"{_number(abs(worse))} {'worse' if worse > 0 else 'better'}"
        found.append(("alert" if worse > allowed else "fine", f"{sides}: {told}, allowed {allowed:g} worse."))
    return found


def _drift(signal: Signal, config: Watch) -> list[tuple[Effect, str]]:
    """Judge what can only alert."""
    alert = config.alert
    drifted = [column.column for column in signal.columns if column.drifted]
    names = f" ({', '.join(drifted[:5])}{' and others' if len(drifted) > 5 else ''})" if drifted else ""
    chance = signal.prediction_chance or 0.0
    watched: list[tuple[float | None, float, str, str, str]] = [
        (signal.drifted_share, alert.drifted_share, "The share of drifted columns", names, ""),
        (
            signal.prediction_drift,
            alert.prediction_drift + chance,
            "The distance of the predictions' distribution from the hold-out's",
            "",
            f" ({_number(alert.prediction_drift)} and {_number(chance)} for chance)",
        ),
    ]
    if isinstance(alert, TableAlert):
        watched.append((signal.importance_shift, alert.importance_shift, "The shift of feature importance", "", ""))
    if isinstance(alert, AnswerAlert):
        lifted, allowed = signal.told_apart_chance or 0.0, alert.messages_told_apart
        why = f" ({_number(allowed)} and {_number(lifted)} for chance)"
        what = "The AUC with which the messages are told from those of the evaluation"
        watched.append((signal.told_apart, allowed + lifted, what, "", why))
    found: list[tuple[Effect, str]] = []
    for observed, allowed, what, more, why in watched:
        if observed is None:
            found.append(("unknown", f"{what} could not be computed."))
        else:
            effect: Effect = "alert" if observed > allowed else "fine"
            found.append((effect, f"{what} is {_number(observed)}{more}, allowed {_number(allowed)}{why}."))
    return found


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
