"""Prefect tasks of the store: requests for approval and the cost of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.store import approvals
from services.store.config import ApprovalRule
from tasks.core.prefect import emit_alert, show_text, stage
from tasks.core.settings import Settings
from tasks.evaluate.results import Verdict
from tasks.language.token_count import token_count
from tasks.release.config import Price
from tasks.release.results import Release
from tasks.train.results import Candidate

WAIVE = "criterion.waive"


def record_release(release: Release, verdict: Verdict, settings: Settings) -> None:
    """Enter into the audit trail what a new release rests on: waived criteria, and its prompt."""
    record_waivers(release, verdict, settings)
    record_candidate_prompt(release, settings)


def record_candidate_prompt(release: Release, settings: Settings) -> None:
    """Enter into the audit trail that a verdict made the release's prompt the candidate, once a release."""
    from contextlib import closing

    from services.store.audit import audit_events, record_audit_event
    from services.store.database import Store
    from services.store.prompt_history import CANDIDATE_EVENT

    if release.kind != "llm":
        return
    with closing(Store(settings)) as store:
        recorded = {each.subject for each in audit_events(store, release.case) if each.action == CANDIDATE_EVENT}
        if release.digest not in recorded:
            with store.changing() as connection:
                record_audit_event(connection, CANDIDATE_EVENT, release.digest, case=release.case)


@stage("request approval", lambda approval: approval.outcome)
def request_approval(
    candidate: Candidate, verdict: Verdict, rule: ApprovalRule, by: str, run: str, settings: Settings
) -> approvals.Approval:
    """Request approval of a candidate on its evidence, and alert people while the request is pending."""
    from contextlib import closing

    from services.store.approvals import ApprovalRequest, evidence_digest, request_approval
    from services.store.database import Store
    from tasks.evaluate.tabular.gates import explain

    case = candidate.case
    digests = verdict.digest, candidate.weights_digest, candidate.data_digest
    evidence = evidence_digest(*digests, champion=verdict.champion)
    champion = (verdict.champion or "no champion")[:12]
    summary = f"As of {candidate.as_of:%Y-%m-%d %H:%M} UTC, beside {champion}:\n{explain(verdict)}"
    request = ApprovalRequest(case, evidence, candidate.as_of, by, summary, run)
    with closing(Store(settings)) as store:
        approval = request_approval(store, request, rule.within)
    if approval.state == "waiting":
        until = f"{approval.expires_at:%Y-%m-%d %H:%M} UTC"
        todo = f"driftline approve {case} --evidence {evidence[:12]}, or reject, until {until}"
        subject = f"{case}: a release waits for approval"
        emit_alert(case, f"approval {evidence[:12]}", subject, f"{summary}\n{todo}")
        show_text(f"{case}-approval", f"{summary}\n\n{todo}", "A release that needs approval")
    return approval


def record_waivers(release: Release, verdict: Verdict, settings: Settings) -> None:
    """Enter each criterion that a person waived into the audit trail, once a release."""
    from contextlib import closing

    from services.store.audit import audit_events, record_audit_event
    from services.store.database import Store

    waived = [criterion for criterion in verdict.criteria if criterion.waiver]
    if not waived:
        return
    with closing(Store(settings)) as store:
        events = audit_events(store, release.case)
        recorded = {
            each.details["criterion"] for each in events if (each.action, each.subject) == (WAIVE, release.digest)
        }
        with store.changing() as connection:
            for each in [criterion for criterion in waived if criterion.name not in recorded]:
                record_audit_event(
                    connection,
                    WAIVE,
                    release.digest,
                    case=release.case,
                    criterion=each.name,
                    observed=each.observed,
                    reason=each.waiver,
                )


@contextmanager
def evaluation_cost(case: str, price: Price, settings: Settings) -> Iterator[None]:
    """Record what is asked of models within the block, at the case's prices; nothing when all answers were cached."""
    from services.store.training import record_evaluation

    with token_count() as count:
        try:
            yield
        finally:
            if count.calls:
                record_evaluation(case, count, price, settings)


def record_training_cost(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Record the cost of a candidate's training in the usage records, once."""
    from services.store.training import record_training

    record_training(candidate, machine_hour, settings)


def record_search_costs(case: str, key: str, folder: Path, machine_hour: float, settings: Settings) -> None:
    """Record the cost of each trial of a search in the usage records, once."""
    from services.store.training import record_trials

    record_trials(case, key, folder, machine_hour, settings)


@stage("look at the guardrails of {case}", lambda count: f"{count} alerts")
def watch_guardrails(case: str, days: int, settings: Settings) -> int:
    """Alert people when a rule fails, or finds certainly more on the last day than on the days before."""
    from contextlib import closing

    from services.store.database import Store
    from services.store.guardrails import guardrail_alerts, guardrail_days

    with closing(Store(settings)) as store:
        alerts = guardrail_alerts(guardrail_days(store, case, days))
    for cause, sentence in alerts:
        todo = f"See: driftline guard report {case}"
        emit_alert(case, cause, f"{case}: a guardrail needs a look", f"{sentence}.\n{todo}")
    return len(alerts)
