"""`driftline approve` and `reject`, and the step of a flow that waits for them."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.run_context import actor_of
from tasks.core.actor import acting
from tasks.core.display import one_line
from tasks.core.errors import GateFailed, InputError, WaitsForApproval

if TYPE_CHECKING:
    from flows.run_context import RunContext
    from flows.steps import TrainResult
    from services.store.approvals import Approval


def require_approval(run: RunContext, trained: TrainResult) -> None:
    """Require a person's approval of this evidence, if the case demands one.

    A deployed run is suspended meanwhile: it needs no process, and shows a form in Prefect's UI.
    Raises: GateFailed when it is rejected or expires; WaitsForApproval at a terminal.
    """
    rule = run.case.approval
    if rule is None:
        return
    from prefect.runtime import deployment, flow_run

    from services.store.task import request_approval

    waiting = str(flow_run.id) if deployment.id else ""
    requester = actor_of(run.by)  # not the pipeline: who started the run may not approve it
    with acting(requester):
        approval = request_approval(trained.candidate, trained.verdict, rule, requester.name, waiting, run.settings)
    if approval.state == "waiting" and deployment.id:
        approval = _ask_in_form(run, approval)
    if approval.state == "waiting":
        raise WaitsForApproval(
            f"The release of {approval.case} waits for approval.\n{approval.evidence_summary}",
            allowed=f"any person except {approval.requested_by}, until {approval.expires_at:%Y-%m-%d %H:%M} UTC",
            todo=f"driftline approve {approval.case}, then: "
            f"driftline run {approval.case} --as-of {approval.as_of.isoformat()}",
        )
    if approval.state != "approved":
        raise GateFailed(f"The release of {approval.case} was not approved: {approval.outcome}. The champion stays.")


def _ask_in_form(run: RunContext, approval: Approval) -> Approval:
    """Suspend this run until a person submits the form or runs `driftline approve`."""
    from prefect.flow_runs import suspend_flow_run
    from prefect.input import RunInput

    class ApprovalForm(RunInput):
        decision: Literal["approve", "reject"]
        name: str = Field(
            min_length=1, description=f"Who you are: a person, and not {approval.requested_by or 'the requester'}."
        )
        why: str = ""

    shown = f"{approval.evidence_summary}\n\nEvidence {approval.evidence[:12]}"
    seconds = max(1, int((approval.expires_at - approval.requested_at).total_seconds()))
    form = suspend_flow_run(
        ApprovalForm.with_initial_data(description=shown), timeout=seconds, key=approval.evidence[:32]
    )
    return decide(approval.case, approval.evidence, form.decision == "approve", form.name, "prefect", form.why)


def decide(case: str, evidence: str, approves: bool, who: str, via: str, why: str) -> Approval:
    """Store a person's decision.

    Raises: InputError.
    """
    from services.store import approvals
    from services.store.database import Store
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        return approvals.decide(store, case, approvals.Review(evidence, approves, who, via, why))


def decide_at_terminal(case: str, approves: bool, evidence: str | None, why: str) -> None:
    """Show the pending approval, and store the decision of the person at this terminal.

    Raises: InputError when nothing is pending, or there is no terminal and no evidence is named.
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
        requester = one_line(waiting.requested_by or "") or "an unknown person"
        console.print(f"requested by {requester}, evidence {waiting.evidence[:12]}")
        if evidence is None and not sys.stdin.isatty():
            raise InputError(
                "There is no terminal to confirm at.",
                where=case,
                allowed="--evidence DIGEST, which names what was reviewed",
                todo=f"--evidence {waiting.evidence[:12]}",
            )
        if evidence is None and not typer.confirm("Approve?" if approves else "Reject?"):
            return
    approval = decide(
        case, evidence or (waiting.evidence if waiting else ""), approves, current_user(), "terminal", why
    )
    goes_on = (
        "the suspended run resumes" if approval.run else f"driftline run {case} --as-of {approval.as_of.isoformat()}"
    )
    console.print(f"{one_line(approval.outcome)}. Next: {goes_on if approves else 'the champion stays'}")
