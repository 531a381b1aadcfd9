"""`driftline approve` and `reject`, and where a flow waits for them."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tasks.core.display import one_line
from tasks.core.errors import GateFailed, InputError, WaitsForApproval

if TYPE_CHECKING:
    from flows.run_context import RunContext
    from flows.steps import TrainResult
    from services.store.approvals import Approval


def require_approval(run: RunContext, trained: TrainResult) -> None:
    """Go on only with a person's word on this very evidence, where the case wants one.

    A deployed run is suspended meanwhile: it needs no process, and shows a form in Prefect's UI.
    Raises: GateFailed when they said no, or nothing in time; Waits in a terminal, where nobody would go on.
    """
    rule = run.case.approval
    if rule is None:
        return
    from prefect.runtime import deployment, flow_run

    from services.store.task import request_approval
    from tasks.core.processes import current_user

    waiting = str(flow_run.id) if deployment.id else ""
    # only the schedule and this installation's owner can start a run without naming themselves
    by = run.by or ("schedule" if "auto-scheduled" in (flow_run.tags or []) else current_user())
    asked = request_approval(trained.candidate, trained.verdict, rule, by, waiting, run.settings)
    if asked.state == "waiting" and deployment.id:
        asked = _ask_in_form(run, asked)
    if asked.state == "waiting":
        raise WaitsForApproval(
            f"The release of {asked.case} waits for a person's word.\n{asked.evidence_summary}",
            allowed=f"anybody but {asked.requested_by}, until {asked.expires_at:%Y-%m-%d %H:%M} UTC",
            todo=f"driftline approve {asked.case}, then: driftline run {asked.case} --as-of {asked.as_of.isoformat()}",
        )
    if asked.state != "approved":
        raise GateFailed(f"The release of {asked.case} was not approved: {asked.outcome}. The champion stays.")


def _ask_in_form(run: RunContext, asked: Approval) -> Approval:
    """Suspend this run until somebody has filled in the form, here or by `driftline approve`."""
    from prefect.flow_runs import suspend_flow_run
    from prefect.input import RunInput

    class Word(RunInput):
        decision: Literal["approve", "reject"]
        name: str = Field(
            min_length=1, description=f"Who you are: a person, and not {asked.requested_by or 'who asked'}."
        )
        why: str = ""

    shown = f"{asked.evidence_summary}\n\nEvidence {asked.evidence[:12]}"
    seconds = max(1, int((asked.expires_at - asked.requested_at).total_seconds()))
    said = suspend_flow_run(Word.with_initial_data(description=shown), timeout=seconds, key=asked.evidence[:32])
    return decide(asked.case, asked.evidence, said.decision == "approve", said.name, "prefect", said.why)


def decide(case: str, evidence: str, approves: bool, who: str, via: str, why: str) -> Approval:
    """Write down a person's word.

    Raises: InputError.
    """
    from services.store import approvals
    from services.store.database import Store
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        return approvals.decide(store, case, approvals.Review(evidence, approves, who, via, why))


def decide_at_terminal(case: str, approves: bool, evidence: str | None, why: str) -> None:
    """Show what waits, and write down what the person at this terminal says of it.

    Raises: InputError when nothing waits, or nobody sits here to be asked and no evidence is named.
    """
    import typer

    from services.store import approvals
    from services.store.database import Store
    from tasks.core.console import console
    from tasks.core.processes import current_user
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        waiting = next((each for each in approvals.list_approvals(store, case) if each.state == "waiting"), None)
    if waiting:
        console.print(waiting.evidence_summary)
        requester = one_line(waiting.requested_by or "") or "nobody known"
        console.print(f"asked by {requester}, evidence {waiting.evidence[:12]}")
        if evidence is None and not sys.stdin.isatty():
            raise InputError(
                "Nobody sits at this terminal to be asked.",
                where=case,
                allowed="--evidence DIGEST, which says what was looked at",
                todo=f"--evidence {waiting.evidence[:12]}",
            )
        if evidence is None and not typer.confirm("Approve?" if approves else "Reject?"):
            return
    said = decide(case, evidence or (waiting.evidence if waiting else ""), approves, current_user(), "terminal", why)
    goes_on = "the run that waits goes on" if said.run else f"driftline run {case} --as-of {said.as_of.isoformat()}"
    console.print(f"{one_line(said.outcome)}. Next: {goes_on if approves else 'the champion stays'}")
