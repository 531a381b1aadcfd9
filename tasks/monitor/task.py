"""Prefect tasks of the monitor room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tasks.core.display import escape_markdown
from tasks.core.prefect import emit_alert, emit_case_event, show_link, show_text, stage
from tasks.data.results import WindowMessages
from tasks.evaluate.config import ChampionGate
from tasks.features.results import Frame
from tasks.monitor.config import AnswerMonitor, Monitor, Watch
from tasks.monitor.results import Attempt, Decision, Signal
from tasks.predict.results import Predictions
from tasks.release.results import Release
from tasks.train.config import Split, Target


@stage("measure {start:%Y-%m-%d} to {as_of:%Y-%m-%d}", lambda signal: _figures(signal))
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
    predecessor: Release | None = None,
    gate: ChampionGate | None = None,
) -> Signal:
    """Join the predictions of a window with the outcomes known by now, and measure performance and drift."""
    from tasks.monitor.signal import Window
    from tasks.monitor.tabular.measure import measure

    window = Window(release.case, release.digest, as_of, start, as_of)
    before = (predecessor, gate) if predecessor and gate else None
    signal = measure(window, release.folder, release.columns, target, config, frame.path, out, state, before)
    show_link(f"{release.case}-drift", signal.report, "Evidently's report")
    return signal


@stage("measure answers {start:%Y-%m-%d} to {as_of:%Y-%m-%d}", lambda signal: _figures(signal))
def measure_messages(
    release: Release,
    config: AnswerMonitor,
    folder: Path,
    predictions: Predictions,
    asked: WindowMessages,
    start: datetime,
    as_of: datetime,
    out: Path,
    state: Path,
) -> Signal:
    """Hold the answers of a window against the right ones that are known, and look for drift."""
    from tasks.data.language.embedder_files import find_embedder
    from tasks.monitor.language.measure import measure_answers
    from tasks.monitor.signal import Window

    window = Window(release.case, release.digest, as_of, start, as_of)
    signal = measure_answers(window, release.folder, config, find_embedder(config.embedder, folder), asked, out, state)
    show_link(f"{release.case}-drift", signal.report, "Evidently's report")
    return signal


@stage("decide", lambda decision: decision.action)
def decide_on(signal: Signal, config: Watch, history: Sequence[Attempt] | None = None) -> Decision:
    """Ignore, alert, recalibrate, retrain or roll back; `history` is, unless given, that of the state folder."""
    from tasks.monitor.attempts import attempts
    from tasks.monitor.decide import decide

    if history is None:
        history = attempts(signal.folder.parents[3], signal.case)
    decision = decide(signal, config, history)
    reasons = "\n".join(f"- {escape_markdown(reason)}" for reason in decision.reasons)
    show_text(f"{signal.case}-decision", f"**{decision.action}**\n\n{reasons}", "What is done about it, and why")
    return decision


def announce_decision(decision: Decision) -> None:
    """Tell of a decision: what is to be done starts by it, and people hear of all but to ignore."""
    told = decision.model_dump(mode="json", exclude={"folder"})
    emit_case_event(f"decision.{decision.action}", decision.case, told, evidence=decision.evidence)
    if decision.action != "ignore":
        reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
        body = f"As of {decision.as_of:%Y-%m-%d %H:%M} UTC, release {decision.release[:12]}:\n{reasons}"
        link = (decision.folder / "report.html").as_uri()
        emit_alert(decision.case, decision.action, f"{decision.case}: {decision.action}", f"{body}\n{link}")


@stage("calibrate the champion anew", lambda path: path.name)
def recalibrate_champion(decision: Decision, frame: Frame, target: Target, split: Split, state: Path) -> Path:
    """Fit a calibrator behind the champion's scores, on outcomes before the hold-out; a model to be judged."""
    from tasks.monitor.signal import read_signal
    from tasks.monitor.tabular.recalibrate import recalibrate
    from tasks.release.seal import release_folder

    model = release_folder(state, decision.case, decision.release) / "model.skops"
    start = read_signal(decision.folder).start
    return recalibrate(model, frame, start, target, split, decision.folder / "recalibrated.skops")


def _figures(signal: Signal) -> str:
    shown = [name for name in ("auc", "rmse", "exact_match") if name in signal.metrics]
    told = [f"{name} {signal.metrics[name]:.3f} (was {signal.reference.get(name, float('nan')):.3f})" for name in shown]
    told += [f"bias {signal.bias:+.3f}"] if signal.bias is not None else []
    told += [f"{signal.drifted_share:.0%} of columns drifted"] if signal.drifted_share is not None else []
    told += [f"messages told apart {signal.told_apart:.2f}"] if signal.told_apart is not None else []
    return ", ".join(told)
