"""Prefect tasks of the ledger room."""

from __future__ import annotations

from services.store import approvals
from services.store.config import Approval
from tasks.core.config import digest_of
from tasks.core.prefect import emit_alert, show_text, stage
from tasks.core.settings import Settings
from tasks.evaluate.results import Verdict
from tasks.train.results import Candidate


@stage("ask for a person's word", lambda asked: asked.told)
def request_approval(
    candidate: Candidate, verdict: Verdict, rule: Approval, by: str, run: str, settings: Settings
) -> approvals.Approval:
    """Show the evidence to whoever decides, and tell them of it, unless they have decided already."""
    from contextlib import closing

    from services.store.approvals import request_approval
    from services.store.database import Store
    from tasks.evaluate.tabular.gates import explain

    case = candidate.case
    evidence = digest_of([verdict.digest, candidate.weights_digest, candidate.data_digest, verdict.champion])
    beside = (verdict.champion or "no champion")[:12]
    shown = f"As of {candidate.as_of:%Y-%m-%d %H:%M} UTC, beside {beside}:\n{explain(verdict)}"
    with closing(Store(settings)) as store:
        asked = request_approval(store, case, evidence, candidate.as_of, by, run, shown, rule.within)
    if asked.state == "waiting":
        until = f"{asked.expires_at:%Y-%m-%d %H:%M} UTC"
        todo = f"driftline approve {case} --evidence {evidence[:12]}, or reject, until {until}"
        subject = f"{case}: a release waits for approval"
        emit_alert(case, f"approval {evidence[:12]}", subject, f"{shown}\n{todo}")
        show_text(f"{case}-approval", f"{shown}\n\n{todo}", "What a person is to decide on")
    return asked


def record_training_cost(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Have the ledger know what a candidate's training took, once."""
    from services.store.training import record_training

    record_training(candidate, machine_hour, settings)
