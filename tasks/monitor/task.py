"""Prefect tasks of monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.core.display import escape_markdown
from tasks.core.places import Places
from tasks.core.prefect import emit_alert, emit_case_event, show_link, show_text, stage
from tasks.data.results import Snapshot
from tasks.features.results import Frame
from tasks.monitor.config import AnswerMonitor, TabularSpec, Watch
from tasks.monitor.results import Attempt, Decision, LoggedQuestions, QuestionReview, ScoredRows, Signal, UpstreamDrift
from tasks.monitor.signal import Window, WindowData
from tasks.release.results import Release
from tasks.train.config import Split, Target


@stage("measure {window.start:%Y-%m-%d} to {window.as_of:%Y-%m-%d}", lambda signal: _summary(signal))
def measure_window(
    release: Release,
    spec: TabularSpec,
    window: Window,
    data: WindowData,
    places: Places,
    predecessor: Release | None = None,
) -> Signal:
    """Join the predictions of a window with the outcomes known by now, and measure performance and drift."""
    from tasks.monitor.tabular.measure import measure

    return measure(release, spec, window, data, places, predecessor)


@stage("measure what was scored {window.start:%Y-%m-%d} to {window.as_of:%Y-%m-%d}", lambda signal: _summary(signal))
def measure_served(
    release: Release,
    spec: TabularSpec,
    window: Window,
    requests: ScoredRows | None,
    places: Places,
    predecessor: Release | None = None,
) -> Signal:
    """Measure the requests and scored files of a table without time, with the outcomes that arrived."""
    from tasks.monitor.tabular.measure import measure_rows
    from tasks.monitor.tabular.served import read_served

    return measure_rows(
        release, spec, window, read_served(release, spec, window, requests, places), places, predecessor
    )


@stage("measure answers {window.start:%Y-%m-%d} to {window.as_of:%Y-%m-%d}", lambda signal: _summary(signal))
def measure_messages(
    release: Release,
    config: AnswerMonitor,
    window: Window,
    data: WindowData,
    case_folder: Path,
    places: Places,
) -> Signal:
    """Compare the answers of a window with the right ones that are known, and measure drift."""
    from tasks.data.language.embedder_files import find_embedder
    from tasks.monitor.language.measure import measure_answers

    embedder = find_embedder(config.embedder, case_folder)
    return measure_answers(release.folder, config, embedder, window, data, places)


@stage("review the questions", lambda review: review.summary)
def review_questions(release: Release, logged: LoggedQuestions, snapshot: Snapshot, places: Places) -> QuestionReview:
    """Find what is asked often and answered badly, documents that answer nothing, and stale ones."""
    from tasks.knowledge.config import DOCUMENTS
    from tasks.monitor.language.questions import LIST
    from tasks.monitor.language.questions import review_questions as review

    documents = {path.stem: path for path in sorted((snapshot.path / DOCUMENTS).glob("*.parquet"))}
    result = review(release.folder, logged, documents, places.state / "monitor" / release.case)
    text = (result.folder / LIST).read_text(encoding="utf-8")
    show_text(f"{release.case}-questions", text, "What is asked often and answered badly")
    return result


@stage("ask the model behind the address", lambda drift: f"{len(drift.changed)} of {drift.questions} answers changed")
def watch_upstream(release: Release, window: Window, state: Path) -> UpstreamDrift:
    """Ask golden questions again, and compare the answers with the release's."""
    from tasks.monitor.language.upstream import measure_upstream

    return measure_upstream(release.folder, window, state)


@stage("decide", lambda decision: decision.action)
def decide_on_server(drift: UpstreamDrift, window: Window, config: Watch, state: Path) -> Decision:
    """Ignore or alert, where only the model behind the address is measured."""
    from tasks.monitor.decide import decide_on_upstream
    from tasks.monitor.page import write_upstream_page

    decision = decide_on_upstream(drift, window, window.folder(state), config.alert.false_alarms)
    write_upstream_page(drift, decision)
    show_link(f"{decision.case}-monitor", decision.report, "Monitoring report")
    return decision


@stage("decide", lambda decision: decision.action)
def decide_on(signal: Signal, config: Watch, history: Sequence[Attempt] | None = None) -> Decision:
    """Ignore, alert, recalibrate, retrain or roll back; `history` is by default that of the state folder."""
    from tasks.monitor.attempts import attempts
    from tasks.monitor.decide import decide
    from tasks.monitor.page import write_page

    if history is None:
        history = attempts(signal.folder.parents[3], signal.case)
    decision = decide(signal, config, history)
    reasons = "\n".join(f"- {escape_markdown(reason)}" for reason in decision.reasons)
    write_page(signal, decision, config)
    show_link(f"{signal.case}-monitor", decision.report, "Monitoring report")
    show_text(f"{signal.case}-decision", f"**{decision.action}**\n\n{reasons}", "What is done about it, and why")
    return decision


def announce_decision(decision: Decision) -> None:
    """Announce a decision as an event, which starts its run, and alert people unless it is to ignore."""
    payload = decision.model_dump(mode="json", exclude={"folder"})
    emit_case_event(f"decision.{decision.action}", decision.case, payload, evidence=decision.evidence)
    if decision.action != "ignore":
        reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
        body = f"As of {decision.as_of:%Y-%m-%d %H:%M} UTC, release {decision.release[:12]}:\n{reasons}"
        link = decision.report.as_uri()
        emit_alert(decision.case, decision.action, f"{decision.case}: {decision.action}", f"{body}\n{link}")


@stage("calibrate the champion anew", lambda path: path.name)
def recalibrate_champion(decision: Decision, frame: Frame, target: Target, split: Split, state: Path) -> Path:
    """Recalibrate the champion's scores on outcomes before the hold-out; the gates evaluate the model."""
    from tasks.monitor.signal import read_signal
    from tasks.monitor.tabular.recalibrate import recalibrate
    from tasks.release.seal import release_folder

    model = release_folder(state, decision.case, decision.release) / "model.skops"
    start = read_signal(decision.folder).start
    return recalibrate(model, frame, start, target, split, decision.folder / "recalibrated.skops")


def _summary(signal: Signal) -> str:
    shown = [name for name in ("auc", "rmse", "exact_match") if name in signal.metrics]
    parts = [
        f"{name} {signal.metrics[name]:.3f} (was {signal.reference.get(name, float('nan')):.3f})" for name in shown
    ]
    parts += [f"bias {signal.bias:+.3f}"] if signal.bias is not None else []
    parts += [f"{signal.drifted_share:.0%} of columns drifted"] if signal.drifted_share is not None else []
    parts += [f"messages told apart {signal.message_auc:.2f}"] if signal.message_auc is not None else []
    return ", ".join(parts)
