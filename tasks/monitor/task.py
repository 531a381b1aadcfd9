"""Prefect tasks of the monitor room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.data.results import Asked
from tasks.features.results import Frame
from tasks.foundation.task import alert, announce, show_link, show_text, stage
from tasks.monitor.config import AnswerMonitor, Monitor, Watch
from tasks.monitor.results import Decision, Signal
from tasks.predict.results import Predictions
from tasks.release.results import Release
from tasks.train.config import Target


@stage("measure {start:%Y-%m-%d} to {as_of:%Y-%m-%d}", lambda signal: _figures(signal), cache=False)
def measure_window(
    release: Release,
    target: Target,
    config: Monitor,
    predictions: Predictions,
    frame: Frame,
    start: datetime,
    as_of: datetime,
    out: Path,
    state: Path,
) -> Signal:
    """Join the predictions of a window with the outcomes known by now, and measure performance and drift."""
    from tasks.monitor.measure import Window, measure

    window = Window(release.case, release.digest, as_of, start, as_of)
    signal = measure(window, release.folder, release.columns, target, config, frame.path, out, state)
    show_link(f"{release.case}-drift", signal.report, "Evidently's report")
    return signal


@stage("measure answers {start:%Y-%m-%d} to {as_of:%Y-%m-%d}", lambda signal: _figures(signal), cache=False)
def measure_messages(
    release: Release,
    config: AnswerMonitor,
    folder: Path,
    predictions: Predictions,
    asked: Asked,
    start: datetime,
    as_of: datetime,
    out: Path,
    state: Path,
) -> Signal:
    """Hold the answers of a window against the right ones that are known, and look for drift."""
    from tasks.data.embedder import find_embedder
    from tasks.monitor.answers import measure_answers
    from tasks.monitor.measure import Window

    window = Window(release.case, release.digest, as_of, start, as_of)
    signal = measure_answers(window, release.folder, config, find_embedder(config.embedder, folder), asked, out, state)
    show_link(f"{release.case}-drift", signal.report, "Evidently's report")
    return signal


@stage("decide", lambda decision: decision.action)
def decide_on(signal: Signal, config: Watch) -> Decision:
    """Ignore, alert or retrain, with the reasons."""
    from tasks.monitor.decide import decide

    decision = decide(signal, config)
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    show_text(f"{signal.case}-decision", f"**{decision.action}**\n\n{reasons}", "What is done about it, and why")
    return decision


def announce_decision(decision: Decision) -> None:
    """Tell of a decision: what is to be done starts by it, and people hear of all but to ignore."""
    told = decision.model_dump(mode="json", exclude={"folder"})
    announce(f"decision.{decision.action}", decision.case, told, evidence=decision.evidence)
    if decision.action != "ignore":
        reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
        body = f"As of {decision.as_of:%Y-%m-%d %H:%M} UTC, release {decision.release[:12]}:\n{reasons}"
        link = (decision.folder / "report.html").as_uri()
        alert(decision.case, decision.action, f"{decision.case}: {decision.action}", f"{body}\n{link}")


def _figures(signal: Signal) -> str:
    shown = [name for name in ("auc", "rmse", "exact_match") if name in signal.metrics]
    told = [f"{name} {signal.metrics[name]:.3f} (was {signal.reference.get(name, float('nan')):.3f})" for name in shown]
    told += [f"bias {signal.bias:+.3f}"] if signal.bias is not None else []
    told += [f"{signal.drifted_share:.0%} of columns drifted"] if signal.drifted_share is not None else []
    told += [f"messages told apart {signal.told_apart:.2f}"] if signal.told_apart is not None else []
    return ", ".join(told)
