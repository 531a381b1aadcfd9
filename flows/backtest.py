"""Past months replayed, each as of its own end, under several retraining policies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import cast

from prefect import flow
from prefect.runtime import flow_run
from pydantic import AwareDatetime, Field

from flows.case import TabularCase, load_case
from flows.champion_steps import History, examples_since, monitor_champion
from flows.retrain import challenger_context
from flows.run_context import Request, RunContext, run_context
from flows.steps import TrainResult, create_candidate, evaluate, prepare_snapshot, seal_release
from tasks.backtest.policies import POLICIES, check_backtest, month_ends, policy_acts
from tasks.backtest.results import BacktestResult, MonthResult
from tasks.backtest.sandbox import sandbox_settings, summarise_challenge
from tasks.backtest.summary import Backtest
from tasks.backtest.task import month_summary, score_month, write_report
from tasks.core.config import Section
from tasks.core.progress import progress_step
from tasks.core.settings import settings
from tasks.data.results import Snapshot
from tasks.monitor.results import Attempt, Decision, Outcome
from tasks.monitor.signal import Window
from tasks.predict.task import predict_window
from tasks.release.registry import read_release
from tasks.release.results import Release
from tasks.release.task import require_promotion


class BacktestRequest(Section):
    """The parameters of a backtest."""

    case: str = Field(description="Name of a folder under configs/.")
    start: AwareDatetime = Field(description="A moment of the first month.")
    end: AwareDatetime = Field(description="A moment of the last month.")
    policies: tuple[str, ...] = Field(
        tuple(POLICIES), description=f"What to do at a month's end: {', '.join(POLICIES)}."
    )
    profile: str | None = Field(None, description="A profile of the case, such as smoke.")


def run_name() -> str:
    """The name of the run in the Prefect UI."""
    value = flow_run.parameters.get("request")
    request = value if isinstance(value, BacktestRequest) else BacktestRequest.model_validate(value)
    return f"replay {request.case} {request.start:%Y-%m} to {request.end:%Y-%m}"


@flow(name="backtest", flow_run_name=run_name)
def backtest(request: BacktestRequest) -> BacktestResult:
    """Replay each month under each policy: monitor, decide, retrain, evaluate, promote; report the value of each."""
    config, months = settings(), month_ends(request.start, request.end)
    kind = load_case(request.case, config.cases, request.profile).kind
    check_backtest(kind, request.policies, request.start, request.end)
    first = Request(case=request.case, as_of=months[-1], profile=request.profile)
    with run_context(first, sandbox_settings(config, request.case)) as run:
        return backtest_steps(run, cast(TabularCase, run.case), request, months)


@dataclass(frozen=True)
class PolicyState:
    """A policy's champion, and how it became that."""

    champion: Release
    history: History = field(default_factory=History)


@dataclass(frozen=True)
class Month:
    """A month to replay: the run as of its end, and its snapshot."""

    start: datetime
    run: RunContext
    snapshot: Snapshot
    is_last: bool


def backtest_steps(
    run: RunContext, case: TabularCase, request: BacktestRequest, months: list[datetime]
) -> BacktestResult:
    states = dict.fromkeys(request.policies, PolicyState(release_first(replace(run, as_of=months[0]))))
    results = []
    for start, end in pairwise(months):
        month_run = replace(run, as_of=end)
        with progress_step(f"{start:%B %Y}"):
            with progress_step("prepare"):
                month = Month(start, month_run, prepare_snapshot(month_run), is_last=end == months[-1])
            for policy in request.policies:
                with progress_step(policy) as step:
                    result, states[policy] = simulate_month(month, case, policy, states[policy])
                    step.figure = month_summary(result)
                results.append(result)
    about = Backtest(case.name, request.profile, case.target.task, case.price.machine_hour, run.lineage)
    return write_report(about, results, run.settings.state.parent)


def release_first(run: RunContext) -> Release:
    """The release that every policy begins with.

    Raises: GateFailed when the case's gates stop it.
    """
    with progress_step("first release"):
        snapshot = prepare_snapshot(run)
        candidate = create_candidate(run, snapshot)
        trained = TrainResult(snapshot=snapshot, candidate=candidate, verdict=evaluate(run, candidate, None))
        require_promotion(run.case.name, trained.verdict)
        return read_release(seal_release(run, trained), "")


def simulate_month(month: Month, case: TabularCase, policy: str, state: PolicyState) -> tuple[MonthResult, PolicyState]:
    """A month under a policy, and the policy's state after it; the last month ends without a decision."""
    run, champion, places = month.run, state.champion, month.run.settings.places
    frame = examples_since(run, case, month.snapshot, month.start)
    predict_window(champion, case.name, frame, run.as_of, places.predictions)
    scored = score_month(champion, case.target, frame, Window.of(champion, month.start, run.as_of), places)
    decision = None if month.is_last else monitor_champion(run, month.snapshot, champion, state.history)
    action = POLICIES[policy](decision) if decision else "ignore"
    result = MonthResult(
        month=month.start,
        policy=policy,
        since=champion.as_of,
        scored=scored,
        decision=decision,
        action=action,
        challenge=None,
    )
    if decision is None or not policy_acts(action):
        return result, state
    return apply_decision(month, result, decision.model_copy(update={"action": action}), state)


def apply_decision(
    month: Month, result: MonthResult, decision: Decision, state: PolicyState
) -> tuple[MonthResult, PolicyState]:
    """Roll back, or create a challenger and promote it if it passes its gates."""
    champion, history = state.champion, state.history
    if decision.action == "rollback" and history.predecessor:
        rollback = Attempt(decision=decision, outcome="released", release=history.predecessor.digest)
        return result, PolicyState(history.predecessor, History(None, (*history.attempts, rollback)))
    with progress_step("create the challenger") as training:
        candidate = create_candidate(challenger_context(month.run, month.snapshot, decision), month.snapshot)
    with progress_step("evaluate it") as evaluation:
        verdict = evaluate(month.run, candidate, champion)
    trained = TrainResult(snapshot=month.snapshot, candidate=candidate, verdict=verdict)
    release = read_release(seal_release(month.run, trained), "") if verdict.decision == "promote" else None
    seconds = (training.seconds or 0.0, evaluation.seconds or 0.0)
    challenge = summarise_challenge(candidate, verdict, release, *seconds, month.run.settings)
    result = result.model_copy(update={"challenge": challenge})
    if release is None:
        outcome: Outcome = "rejected" if verdict.decision == "reject" else "undecided"
        ended = Attempt(decision=decision, outcome=outcome)
        return result, replace(state, history=replace(history, attempts=(*history.attempts, ended)))
    released = Attempt(decision=decision, outcome="released", release=release.digest)
    return result, PolicyState(release, History(champion, (*history.attempts, released)))
