"""Prefect tasks of the gateway room."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from tasks.evaluate.results import Verdict
from tasks.foundation.config import digest_of
from tasks.foundation.settings import Settings
from tasks.foundation.task import alert, show_text, stage
from tasks.gateway import approvals
from tasks.gateway.config import Approval, Plan
from tasks.release.results import Release
from tasks.train.results import Candidate


@stage("collect the log of {case}", cache=False)
def collect_log(case: str, as_of: datetime, out: Path, settings: Settings) -> Path:
    """Write what the gateway had answered for a case, and what people had said of it, as a file that can be landed."""
    from tasks.gateway.collect import collect

    return collect(case, as_of, out, settings)


@stage("trace a sample of the calls", lambda count: f"{count} new", cache=False)
def trace_calls(case: str, as_of: datetime, settings: Settings) -> int:
    """Show a share of the case's calls in its MLflow experiment."""
    from tasks.gateway.traces import trace

    return trace(case, as_of, settings)


@stage("send it the traffic", lambda all_of_it: "all of it" if all_of_it else "by its plan", cache=False)
def send_traffic(release: Release, plan: Plan | None, settings: Settings) -> bool:
    """Give the release all of its case's traffic, and say so, or begin its plan beside the champion."""
    from tasks.gateway.takeover import take_over

    return take_over(release, plan, settings)


@stage("roll back to {to:.12}", lambda release: f"version {release.version}", cache=False)
def roll_back(case: str, to: str, why: str, settings: Settings) -> Release:
    """Make an earlier release the champion again, at the gateway and in the registry."""
    from tasks.gateway.takeover import go_back

    return go_back(case, to, why, settings)


@stage("retire what nobody needs", lambda names: ", ".join(names) or "nothing", cache=False)
def retire_others(release: Release, settings: Settings) -> list[str]:
    """Stop the case's releases that have no share of the traffic and are not kept to roll back to."""
    from tasks.gateway.history import warm
    from tasks.gateway.memory import EVERY
    from tasks.gateway.rollout import follow_stack
    from tasks.gateway.store import Store
    from tasks.serve import stack

    if not stack.runs(settings):
        return []
    store = Store(settings)
    keep = warm(store, release.case, settings.gateway_warm)
    time.sleep(2 * EVERY)  # by then no gateway sends anybody to the others
    stopped = stack.retire(settings, release.case, keep)
    follow_stack(store, settings)
    store.close()
    return stopped


@stage("ask for a person's word", lambda asked: asked.told, cache=False)
def ask_approval(
    candidate: Candidate, verdict: Verdict, rule: Approval, by: str, run: str, settings: Settings
) -> approvals.Approval:
    """Show the evidence to whoever decides, and tell them of it, unless they have decided already."""
    from contextlib import closing

    from tasks.evaluate.gates import explain
    from tasks.gateway.approvals import ask
    from tasks.gateway.store import Store

    case = candidate.case
    evidence = digest_of([verdict.digest, candidate.weights_digest, candidate.data_digest, verdict.champion])
    beside = (verdict.champion or "no champion")[:12]
    shown = f"As of {candidate.as_of:%Y-%m-%d %H:%M} UTC, beside {beside}:\n{explain(verdict)}"
    with closing(Store(settings)) as store:
        asked = ask(store, case, evidence, candidate.as_of, by, run, shown, rule.within)
    if asked.state == "waiting":
        until = f"{asked.expires_at:%Y-%m-%d %H:%M} UTC"
        todo = f"driftline approve {case} --evidence {evidence[:12]}, or reject, until {until}"
        alert(case, f"approval {evidence[:12]}", f"{case}: a release waits for a person's word", f"{shown}\n{todo}")
        show_text(f"{case}-approval", f"{shown}\n\n{todo}", "What a person is to decide on")
    return asked


def enter_cost(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Have the ledger know what a candidate's training took, once."""
    from tasks.gateway.training import enter_training

    enter_training(candidate, machine_hour, settings)


def agree_on_champion(case: str, settings: Settings) -> None:
    """Have the registry know which release the traffic went to."""
    from tasks.gateway.takeover import agree

    agree(case, settings)
