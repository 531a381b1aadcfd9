"""What is done with a champion: predict the examples since its training, measure it, and decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flows.case import LanguageCase, TabularCase
from flows.run_context import RunContext
from services.gateway.task import collect_questions, collect_scored_rows, trace_calls
from services.rollout.task import reconcile_champion
from services.store.task import watch_guardrails
from tasks.data.config import TrafficSpec
from tasks.data.results import Snapshot, TimeWindow, WindowMessages
from tasks.data.task import gather_messages
from tasks.features.results import Frame
from tasks.features.task import window_frame
from tasks.monitor.results import Attempt, Decision
from tasks.monitor.signal import Window, WindowData
from tasks.monitor.task import (
    decide_on,
    decide_on_server,
    measure_messages,
    measure_served,
    measure_window,
    review_questions,
    watch_upstream,
)
from tasks.predict.results import Predictions
from tasks.predict.task import answer_window, predict_window
from tasks.release.registry import require_champion
from tasks.release.results import Release
from tasks.release.task import find_predecessor


@dataclass(frozen=True)
class History:
    """What came before a decision: the champion's predecessor, and earlier attempts to replace a champion."""

    predecessor: Release | None = None
    attempts: tuple[Attempt, ...] = ()


def examples_since(run: RunContext, case: TabularCase, snapshot: Snapshot, start: datetime) -> Frame:
    """The tabular examples between a moment and the run's as-of."""
    return window_frame(case.frame_spec, snapshot, run.settings.state, TimeWindow(start=start, end=run.as_of))


def messages_since(run: RunContext, case: LanguageCase, snapshot: Snapshot, start: datetime) -> WindowMessages:
    """The messages that a language release received between a moment and the run's as-of."""
    spec = TrafficSpec(traffic=case.traffic, pairs=case.pairs, answer=case.answer, sources=case.data.sources)
    return gather_messages(spec, snapshot, TimeWindow(start=start, end=run.as_of), run.settings.state)


def current_champion(run: RunContext) -> Release:
    """The champion, once registry and rollout agree on it.

    Raises: CaseError when the case has none.
    """
    reconcile_champion(run.case.name, run.settings)
    return require_champion(run.case.name, run.settings.tracking, run.settings.state)


def predict_since(run: RunContext, snapshot: Snapshot, champion: Release, start: datetime) -> Predictions:
    """Predict all examples between a moment and the run's as-of."""
    config, out = run.settings, run.settings.data / "predictions"
    if isinstance(run.case, LanguageCase):
        messages = messages_since(run, run.case, snapshot, start)
        return answer_window(champion, messages, run.as_of, out, config.threads)
    frame = examples_since(run, run.case, snapshot, start)
    return predict_window(champion, run.case.name, frame, run.as_of, out)


def monitor_champion(
    run: RunContext, snapshot: Snapshot, champion: Release, history: History | None = None
) -> Decision:
    """Measure a champion and decide; without a history, the case's own counts."""
    case, config, places = run.case, run.settings, run.settings.places
    start = max(champion.as_of, run.as_of - case.monitor.window)
    window = Window.of(champion, start, run.as_of)
    trace_calls(case.name, run.as_of, config)
    if not (case.guardrails.is_empty or run.is_replay):
        watch_guardrails(case.name, max(2, case.monitor.window.days), config)
    if isinstance(case, LanguageCase):
        if case.knowledge and champion.has_documents:
            path = config.data / "raw" / case.name / "logged_questions.parquet"
            review_questions(champion, collect_questions(champion, start, run.as_of, path, config), snapshot, places)
        upstream = watch_upstream(champion, window, places.state) if champion.is_remote else None
        if upstream and case.traffic.source is None and case.pairs.templates is None:
            return decide_on_server(upstream, window, case.monitor, places.state)
        predict_since(run, snapshot, champion, start)
        data = WindowData(messages_since(run, case, snapshot, start).path, snapshot, upstream, case.evaluate.scorers)
        signal = measure_messages(champion, case.monitor, window, data, case.folder, places)
        return decide_on(signal, case.monitor, [*history.attempts] if history else None)
    previous = history.predecessor if history else find_predecessor(champion, config.tracking, config.state)
    if case.has_time:
        predict_since(run, snapshot, champion, start)
        data = WindowData(examples_since(run, case, snapshot, start).path, snapshot)
        signal = measure_window(champion, case.monitor_spec, window, data, places, previous)
    else:
        path = config.data / "raw" / case.name / "requests.parquet"
        requests = collect_scored_rows(champion, start, run.as_of, path, config)
        signal = measure_served(champion, case.monitor_spec, window, requests, places, previous)
    return decide_on(signal, case.monitor, [*history.attempts] if history else None)
