"""The champion's answers to what was asked lately."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from flows.case import LanguageCase, TabularCase
from flows.prepare import prepare_steps
from flows.run_context import Request, RunContext, run_context, run_name
from services.rollout.task import agree_on_champion
from tasks.data.results import Snapshot, WindowMessages
from tasks.data.task import gather_messages
from tasks.features.results import Frame
from tasks.features.task import window_frame
from tasks.predict.results import Predictions
from tasks.predict.task import answer_window, predict_window
from tasks.release.results import Release
from tasks.release.task import require_champion


@flow(name="predict", flow_run_name=run_name)
def predict(request: Request) -> Predictions:
    """Score every example between the champion's as-of and this one, each with what was known at its own moment."""
    with run_context(request) as run:
        snapshot, champion = prepare_steps(run), current_champion(run)
        return predict_steps(run, snapshot, champion, champion.as_of)


def current_champion(run: RunContext) -> Release:
    """Raises: CaseError when the case has none."""
    agree_on_champion(run.case.name, run.settings)
    return require_champion(run.case.name, run.settings.tracking, run.settings.state)


def predict_steps(run: RunContext, snapshot: Snapshot, champion: Release, start: datetime) -> Predictions:
    """Answer for all that was asked between a moment and the run's as-of."""
    here, out = run.settings, run.settings.data / "predictions"
    if isinstance(run.case, LanguageCase):
        asked = messages_since(run, run.case, snapshot, start)
        return answer_window(champion, asked, run.as_of, out, here.threads)
    frame = examples_since(run, run.case, snapshot, start)
    return predict_window(champion, run.case.name, frame, run.as_of, out)


def examples_since(run: RunContext, case: TabularCase, snapshot: Snapshot, start: datetime) -> Frame:
    target, slices = case.target.column, case.evaluate.slices
    return window_frame(case.features, target, slices, snapshot, run.settings.state, start, run.as_of)


def messages_since(run: RunContext, case: LanguageCase, snapshot: Snapshot, start: datetime) -> WindowMessages:
    state, sources = run.settings.state, case.data.sources
    return gather_messages(case.name, case.traffic, case.pairs, case.answer, sources, snapshot, state, start, run.as_of)
