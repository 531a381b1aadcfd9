"""A signal compared with what the case allows: one finding for each thing watched, each with its sentence.

A change counts when it is significant (its adjusted p-value) and large enough to matter (what the case allows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tasks.monitor.config import AnswerAlert, Monitor, TableAlert, Watch
from tasks.monitor.drift import THRESHOLD
from tasks.monitor.results import Signal, UpstreamDrift
from tasks.statistics.metric_catalog import worse_by

SHOWN = 3  # changed answers in a sentence
Severity: TypeAlias = Literal["fine", "unknown", "alert", "recalibrate", "retrain"]


@dataclass(frozen=True)
class Finding:
    severity: Severity
    sentence: str


def find_findings(signal: Signal, config: Watch) -> list[Finding]:
    """A finding for everything that is watched, also for what is fine."""
    performance = [*_performance(signal, config), *_estimated(signal, config)]
    upstream = upstream_findings(signal.upstream, config.alert.false_alarms) if signal.upstream else []
    rest = [*_disparities(signal), *_reference_free(signal, config), *_drift(signal, config)]
    return [*performance, *upstream, *rest]


def upstream_findings(drift: UpstreamDrift, false_alarms: float) -> list[Finding]:
    """What a model behind an address shows of a change behind its unchanged name; it can only alert."""
    stated = {"a fingerprint that it did not have at the release": drift.fingerprints, "other facts": drift.facts}
    findings = [
        Finding("alert", f"The server of {drift.model} states {what}: {', '.join(names)}.")
        for what, names in stated.items()
        if names
    ]
    sentence = (
        f"{drift.model} answers {len(drift.changed)} of {drift.questions} golden questions otherwise than at the "
        f"release, where {drift.noise} differed between two times"
    )
    if not drift.changed:
        return [*findings, Finding("fine", f"{sentence}.")]
    if drift.p_value > false_alarms:
        return [*findings, Finding("fine", f"{sentence}; that may be chance ({_p(drift.p_value)}).")]
    examples = "; ".join(
        f"{_short(each.question)!r}: {_short(each.then)!r}, now {_short(each.now)!r}" for each in drift.changed[:SHOWN]
    )
    return [*findings, Finding("alert", f"{sentence} ({_p(drift.p_value)}). {examples}.")]


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 120 else f"{flat[:117]}..."


def _performance(signal: Signal, config: Watch) -> Iterator[Finding]:
    """The watched metric and the bias, if there are enough outcomes."""
    if signal.rows_with_outcome < config.min_rows:
        return
    watched = config.retrain
    now, then = signal.metrics.get(watched.metric), signal.reference.get(watched.metric)
    holds = True
    if now is None or then is None:
        where = "in this window" if now is None else "on the hold-out"
        yield Finding("unknown", f"{watched.metric} could not be computed {where}.")
    else:
        expected = signal.expected.get(watched.metric)
        worse = _unexpected(watched.metric, now, then, expected)
        parts = [_unexpected(watched.metric, part.value, then, part.expected) for part in signal.parts]
        sentence = _compared(watched.metric, now, then, "on the hold-out")
        if expected is not None:
            sentence += f" ({_number(expected)} is what its scores let expect of these rows)"
        sentence += f", allowed {_number(watched.worse_by)} worse"
        finding = _breach(signal, config, "performance", worse, watched.worse_by, parts)
        holds = finding.severity == "fine"
        yield Finding(finding.severity, sentence + finding.sentence)
    if watched.bias is not None or _recalibration_bias(config) is not None:
        yield _bias(signal, config, holds)


def _unexpected(metric: str, now: float | None, then: float, expected: float | None) -> float | None:
    """How much worse than on the hold-out, beyond what the scores let expect.

    Rows can be harder than those of the hold-out. Scores that are still calibrated show it, and retraining does not
    make these rows easier.
    """
    if now is None:
        return None
    worse = worse_by(metric, now, then)
    return worse if expected is None else min(worse, worse_by(metric, now, expected))


def _bias(signal: Signal, config: Watch, holds: bool) -> Finding:
    """Predictions too high or too low on average: retrain, or recalibrate where the metric itself holds."""
    if signal.bias is None:
        return Finding("unknown", "The bias could not be computed.")
    side = 1 if signal.bias > 0 else -1
    parts = [side * part.bias if part.bias is not None else None for part in signal.parts]
    of = "" if signal.task == "classification" else " of the mean |outcome|"
    then = "" if signal.bias_then is None else f" ({signal.bias_then:+.3f} on the hold-out)"
    what = "Predictions are" if signal.bias_class is None else f"The share of {signal.bias_class} is predicted"
    sentence = f"{what} {_number(abs(signal.bias))}{of} too {'high' if side > 0 else 'low'} on average{then}"
    allowed = config.retrain.bias
    recalibration = (
        _recalibration_bias(config) if signal.bias_class is None else None
    )  # one score alone can be calibrated
    if recalibration is not None and holds and (allowed is None or abs(signal.bias) <= allowed):
        finding = _breach(signal, config, "bias", abs(signal.bias), recalibration, parts)
        severity: Severity = "recalibrate" if finding.severity == "retrain" else finding.severity
        return Finding(severity, f"{sentence}, allowed {_number(recalibration)}{finding.sentence}")
    allowed = allowed if allowed is not None else float("inf")
    finding = _breach(signal, config, "bias", abs(signal.bias), allowed, parts)
    return Finding(finding.severity, f"{sentence}, allowed {_number(allowed)}{finding.sentence}")


def _recalibration_bias(config: Watch) -> float | None:
    section = config.recalibrate if isinstance(config, Monitor) else None
    return section.bias if section else None


def _breach(
    signal: Signal, config: Watch, name: str, worse: float | None, allowed: float, parts: list[float | None]
) -> Finding:
    """Whether a deterioration retrains, and the end of its sentence."""
    if worse is None or worse <= allowed:
        return Finding("fine", ".")
    p_value, needs, of = signal.p_values.get(name), config.retrain.needs, config.retrain.of
    if p_value is None:
        return Finding("unknown", "; whether that is chance could not be computed.")
    if p_value > config.alert.false_alarms:
        return Finding("fine", f"; that may be chance ({_p(p_value)}).")
    if of == 1:
        return Finding("retrain", f" ({_p(p_value)}).")
    enough = config.min_rows / of
    bad = sum(
        value is not None and value > allowed and part.rows >= enough
        for value, part in zip(parts, signal.parts, strict=True)
    )
    ending = (
        f" ({_p(p_value)}); so in {bad} of {of} parts of the window, {needs} {'is' if needs == 1 else 'are'} needed."
    )
    return Finding("retrain" if bad >= needs else "alert", ending)


def _estimated(signal: Signal, config: Watch) -> Iterator[Finding]:
    """The estimate for rows without an outcome; it can alert, and never retrains."""
    metric = config.retrain.metric
    now, then = signal.estimated.get(metric), signal.reference.get(metric)
    if now is None or then is None:
        return
    what = f"Of {signal.estimated_rows:,} rows without an outcome, if scores mean what they meant, an estimate: "
    sentence = (
        f"{what}{_compared(metric, now, then, 'on the hold-out')}, allowed {_number(config.retrain.worse_by)} worse"
    )
    yield _alerting(signal, config, "estimated", worse_by(metric, now, then) > config.retrain.worse_by, sentence)


def _disparities(signal: Signal) -> Iterator[Finding]:
    """Groups of people, by the fairness gates of the case; what is not shown is unknown, and never fine."""
    severities: dict[str, Severity] = {"within": "fine", "beyond": "alert", "not shown": "unknown"}
    for each in signal.disparities:
        gate = each.name.removeprefix("fairness_").replace("_", " ")
        reading = "not shown to be within" if each.outcome == "not shown" else each.outcome
        sentence = (
            f"The difference of groups in {gate} is {reading} what the case allows ({each.required}): {each.note}."
        )
        yield Finding(severities[each.outcome], sentence)


def _reference_free(signal: Signal, config: Watch) -> Iterator[Finding]:
    """The metrics that need no right answers."""
    if not isinstance(config.alert, AnswerAlert):
        return
    shares = config.alert.dearer_by
    for metric, allowed in (*config.alert.worse_by.items(), *shares.items()):
        now, then = signal.reference_free.get(metric), signal.reference_free_then.get(metric)
        if now is None or then is None:
            yield Finding("unknown", f"{metric} of the answers could not be computed.")
        elif metric in shares:
            sentence = f"{metric} of all answers is {_number(now)} against {_number(then)}, allowed {allowed:.0%} more"
            yield _alerting(signal, config, metric, now > then * (1 + allowed), sentence)
        else:
            sentence = f"{_compared(metric, now, then, '', ' of all answers')}, allowed {allowed:g} worse"
            yield _alerting(signal, config, metric, worse_by(metric, now, then) > allowed, sentence)


def _drift(signal: Signal, config: Watch) -> Iterator[Finding]:
    """Drift of columns, predictions, importance and messages, which can only alert."""
    alert = config.alert
    drifted = [column.column for column in signal.columns if column.drifted]
    names = f" ({', '.join(drifted[:5])}{' and others' if len(drifted) > 5 else ''})" if drifted else ""
    watched: list[tuple[float | None, float, str, str, str]] = [
        (signal.drifted_share, alert.drifted_share, "", "The share of drifted columns", names),
        (
            signal.prediction_drift,
            alert.prediction_drift,
            "prediction",
            "The distance of the predictions' distribution from the hold-out's",
            "",
        ),
    ]
    for column in signal.columns:
        if column.drifted and (column.unseen_now or 0.0) - (column.unseen_then or 0.0) > THRESHOLD:
            yield Finding(
                "alert",
                f"{column.unseen_now:.0%} of the rows have a {column.column} that training never saw "
                f"({', '.join(column.unseen)}), allowed {THRESHOLD:.0%} more than in the hold-out.",
            )
    if isinstance(alert, TableAlert):
        what = "The shift of feature importance"
        watched.append((signal.importance_shift, alert.importance_shift, "importance", what, ""))
    if isinstance(alert, AnswerAlert):
        what = "The AUC of a classifier between the messages and those of the evaluation"
        watched.append((signal.message_auc, alert.message_auc, "messages", what, ""))
    for observed, allowed, name, what, more in watched:
        if observed is None:
            yield Finding("unknown", f"{what} could not be computed{_why(signal, name)}.")
            continue
        sentence = f"{what} is {_number(observed)}{more}, allowed {_number(allowed)}"
        if name:
            yield _alerting(signal, config, name, observed > allowed, sentence)
        else:  # each column was tested by itself
            yield Finding("alert" if observed > allowed else "fine", f"{sentence}.")


def _why(signal: Signal, name: str) -> str:
    """The reason why drift of the columns ("") or of the predictions was not computed, where it is known."""
    notes = Counter(column.note for column in signal.columns if column.drifted is None and column.note)
    if name == "prediction":
        return f": {signal.prediction_note}" if signal.prediction_note else ""
    return f": {notes.most_common(1)[0][0]}" if not name and notes else ""


def _alerting(signal: Signal, config: Watch, name: str, matters: bool, sentence: str) -> Finding:
    """Alert on what matters, unless it may be chance."""
    p_value = signal.p_values.get(name)
    if not matters:
        return Finding("fine", f"{sentence}.")
    if p_value is None:
        return Finding("unknown", f"{sentence}; whether that is chance could not be computed.")
    if p_value > config.alert.false_alarms:
        return Finding("fine", f"{sentence}; that may be chance ({_p(p_value)}).")
    return Finding("alert", f"{sentence} ({_p(p_value)}).")


def _compared(metric: str, now: float, then: float, where: str, of: str = "") -> str:
    worse = worse_by(metric, now, then)
    change = f"{_number(abs(worse))} {'worse' if worse > 0 else 'better'}"
    return f"{metric}{of} is {_number(now)} against {_number(then)}{' ' * bool(where)}{where}: {change}"


def _p(p_value: float) -> str:
    return f"p {p_value:.2g}" if p_value >= 0.0001 else "p below 0.0001"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
