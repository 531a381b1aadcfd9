"""Months of the past played again, each as of its own end, under several policies of retraining."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import cast

from prefect import flow
from prefect.runtime import flow_run
from pydantic import AwareDatetime, Field

from flows.case import TabularCase, load_case
from flows.monitor import monitor_steps
from flows.predict import examples_since
from flows.prepare import prepare_steps
from flows.release import seal_steps
from flows.retrain import challenger_context
from flows.run_context import Request, RunContext, run_context
from flows.train import TrainResult, candidate_steps, evaluate_steps
from tasks.backtest.policies import POLICIES, check_backtest, month_ends, policy_acts
from tasks.backtest.results import BacktestResult, MonthResult
from tasks.backtest.sandbox import challenge_of, sandbox_settings
from tasks.backtest.task import challenge_summary, score_month, write_report
from tasks.core.config import Section
from tasks.core.progress import progress_step
from tasks.core.settings import settings
from tasks.data.results import Snapshot
from tasks.monitor.results import Attempt, Decision
from tasks.predict.task import predict_window
from tasks.release.registry import release_in
from tasks.release.results import Release
from tasks.release.task import require_promotion


class BacktestRequest(Section):
    """What a replay is asked."""

    case: str = Field(description="Name of a folder under configs/.")
    start: AwareDatetime = Field(description="A moment of the first month.")
    end: AwareDatetime = Field(description="A moment of the last month.")
    policies: tuple[str, ...] = Field(
        tuple(POLICIES), description=f"What to do at a month's end: {', '.join(POLICIES)}."
    )
    profile: str | None = Field(None, description="A profile of the case, such as smoke.")


def run_name() -> str:
    """What the Prefect UI calls a replay."""
    request = flow_run.parameters.get("request")
    asked = request if isinstance(request, BacktestRequest) else BacktestRequest.model_validate(request)
    return f"replay {asked.case} {asked.start:%Y-%m} to {asked.end:%Y-%m}"


@flow(name="backtest", flow_run_name=run_name)
def backtest(request: BacktestRequest) -> BacktestResult:
    """Play each month under each policy: monitor, decide, retrain, judge, promote; report what each was worth."""
    here, months = settings(), month_ends(request.start, request.end)
    check_backtest(
        load_case(request.case, here.cases, request.profile).kind, request.policies, request.start, request.end
    )
    asked = Request(case=request.case, as_of=months[-1], profile=request.profile)
    with run_context(asked, sandbox_settings(here, request.case)) as run:
        return backtest_steps(run, cast(TabularCase, run.case), request, months)


@dataclass(frozen=True)
class PolicyState:
    """Where a policy stands: its champion, the one before, and what was attempted."""

    champion: Release
    before: Release | None = None
    history: tuple[Attempt, ...] = ()


def backtest_steps(
    run: RunContext, case: TabularCase, request: BacktestRequest, months: list[datetime]
) -> BacktestResult:
    standing = dict.fromkeys(request.policies, PolicyState(release_first(replace(run, as_of=months[0]))))
    played = []
    for month, following in pairwise(months):
        at, goes_on = replace(run, as_of=following), following < months[-1]
        with progress_step(f"{month:%B %Y}"):
            with progress_step("prepare"):
                snapshot = prepare_steps(at)
            for policy in request.policies:
                with progress_step(policy) as told:
                    done, standing[policy] = simulate_month(
                        at, case, snapshot, month, policy, standing[policy], goes_on
                    )
                    told.figure = challenge_summary(done)
                played.append(done)
    price = case.price.machine_hour
    return write_report(case.name, request.profile, case.target.task, price, played, run.lineage, run.settings)


def release_first(run: RunContext) -> Release:
    """What every policy begins with.

    Raises: GateFailed when the case's gates stop it.
    """
    with progress_step("first release"):
        snapshot = prepare_steps(run)
        candidate = candidate_steps(run, snapshot)
        trained = TrainResult(snapshot=snapshot, candidate=candidate, verdict=evaluate_steps(run, candidate, None))
        require_promotion(run.case.name, trained.verdict)
        return release_in(seal_steps(run, trained), "")


def simulate_month(
    at: RunContext,
    case: TabularCase,
    snapshot: Snapshot,
    month: datetime,
    policy: str,
    standing: PolicyState,
    goes_on: bool,
) -> tuple[MonthResult, PolicyState]:
    """A month under a policy, and where it stands after it; with the last one the replay ends: nothing is decided."""
    champion, out = standing.champion, at.settings.data / "predictions"
    frame = examples_since(at, case, snapshot, month)
    predict_window(champion, case.name, frame, at.as_of, out)
    scored = score_month(champion, case.target, frame, month, at.as_of, out, at.settings.state / "scores")
    decision = monitor_steps(at, snapshot, champion, (standing.before, [*standing.history])) if goes_on else None
    action = POLICIES[policy](decision) if decision else "ignore"
    done = MonthResult(
        month=month,
        policy=policy,
        since=champion.as_of,
        scored=scored,
        decision=decision,
        action=action,
        challenge=None,
    )
    if decision is None or not policy_acts(action):
        return done, standing
    return apply_decision(at, snapshot, done, decision.model_copy(update={"action": action}), standing)


def apply_decision(
    at: RunContext, snapshot: Snapshot, done: MonthResult, decision: Decision, standing: PolicyState
) -> tuple[MonthResult, PolicyState]:
    """Go back, or make a challenger and let the gates say who stands from now on."""
    champion, history = standing.champion, standing.history
    if decision.action == "rollback" and standing.before:
        back = Attempt(decision=decision, outcome="released", release=standing.before.digest)
        return done, PolicyState(standing.before, None, (*history, back))
    with progress_step("make a challenger") as making:
        candidate = candidate_steps(challenger_context(at, snapshot, decision), snapshot)
    with progress_step("judge it") as judging:
        trained = TrainResult(snapshot=snapshot, candidate=candidate, verdict=evaluate_steps(at, candidate, champion))
    promoted = trained.verdict.decision == "promote"
    release = release_in(seal_steps(at, trained), "") if promoted else None
    took = (making.seconds or 0.0, judging.seconds or 0.0)
    done = done.model_copy(update={"challenge": challenge_of(candidate, trained.verdict, release, *took, at.settings)})
    if release is None:
        return done, replace(standing, history=(*history, Attempt(decision=decision, outcome="rejected")))
    attempt = Attempt(decision=decision, outcome="released", release=release.digest)
    return done, PolicyState(release, champion, (*history, attempt))
