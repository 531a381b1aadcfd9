"""Audit events of runs: its beginning, a change of configuration since the run before, its data and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from services.store.audit import audit_events, record_audit_event
from services.store.database import Store
from tasks.core.actor import pipeline
from tasks.core.settings import Settings
from tasks.data.results import Snapshot, ValidatedBatches
from tasks.evaluate.results import Verdict
from tasks.monitor.results import Decision
from tasks.train.results import Candidate

BEGIN, CHANGE, DATA, VERDICT = "run.begin", "config.change", "data.validate", "verdict.record"
MONITOR, SELFTEST = "monitor.decide", "gates.selftest"


@dataclass(frozen=True)
class RunFacts:
    """What is recorded of a run."""

    case: str
    flow: str
    profile: str
    as_of: str
    run: str  # id in Prefect
    lineage: Mapping[str, str]
    sections: Mapping[str, str]  # digest of each section of the case


def record_run(facts: RunFacts, settings: Settings) -> None:
    """Record that a run begins, and which sections of the case changed since the last run of its profile."""
    lineage = facts.lineage
    config = lineage["case_digest"]
    with closing(Store(settings)) as store, store.writing() as connection:
        earlier = [
            event.details
            for event in audit_events(store, facts.case, None, CHANGE)
            if event.details["profile"] == facts.profile
        ]
        before: Mapping[str, Any] = earlier[-1] if earlier else {"config": "", "sections": {}}
        if before["config"] != config:
            names = {*facts.sections, *before["sections"]}
            changed = sorted(name for name in names if facts.sections.get(name) != before["sections"].get(name))
            record_audit_event(
                connection,
                CHANGE,
                config,
                case=facts.case,
                profile=facts.profile,
                before=before["config"],
                config=config,
                changed=changed if earlier else [],
                sections=dict(facts.sections),
                commit=lineage["commit"],
                dirty=lineage["dirty"],
            )
        record_audit_event(
            connection,
            BEGIN,
            config,
            case=facts.case,
            flow=facts.flow,
            profile=facts.profile,
            as_of=facts.as_of,
            run=facts.run,
            commit=lineage["commit"],
            dirty=lineage["dirty"],
            lock=lineage["lock_digest"],
        )


def record_validation(snapshot: Snapshot, validated: Sequence[ValidatedBatches], settings: Settings) -> None:
    """Record what validation found in the data of a snapshot, once a snapshot."""
    sources = {
        each.source: {
            "rows": each.rows,
            "quarantined": each.quarantined,
            "expectations": each.validation.expectations,
            "warnings": each.validation.warnings,
        }
        for each in validated
    }
    with closing(Store(settings)) as store, store.writing() as connection:
        recorded = {event.subject for event in audit_events(store, snapshot.case, None, DATA)}
        if snapshot.digest not in recorded:
            as_of = snapshot.as_of.isoformat()
            record_audit_event(connection, DATA, snapshot.digest, case=snapshot.case, as_of=as_of, sources=sources)


def record_verdict(candidate: Candidate, verdict: Verdict, settings: Settings) -> None:
    """Record what the gates decided on a candidate, once for each verdict on a training run."""
    with closing(Store(settings)) as store, store.writing() as connection:
        for event in audit_events(store, candidate.case, None, VERDICT):
            if (event.subject, event.details["run"]) == (verdict.digest, candidate.run_id):
                return
        record_audit_event(
            connection,
            VERDICT,
            verdict.digest,
            case=candidate.case,
            actor=pipeline(),
            decision=verdict.decision,
            failed=[c.name for c in verdict.criteria if c.blocking and not c.passed],
            champion=verdict.champion or "",
            run=candidate.run_id,
            weights=candidate.weights_digest,
            data=candidate.data_digest,
            as_of=candidate.as_of.isoformat(),
        )


def record_decision(decision: Decision, settings: Settings) -> None:
    """Record what monitoring decided on a release, once for each decision."""
    with closing(Store(settings)) as store, store.writing() as connection:
        recorded = {event.details["digest"] for event in audit_events(store, decision.case, None, MONITOR)}
        if decision.digest in recorded:
            return
        record_audit_event(
            connection,
            MONITOR,
            decision.release,
            case=decision.case,
            actor=pipeline(),
            digest=decision.digest,
            decision=decision.action,
            reason="; ".join(decision.reasons),
            as_of=decision.as_of.isoformat(),
        )


def record_selftest(case: str, release: str, caught: Mapping[str, Sequence[str]], settings: Settings) -> None:
    """Record which gates refused which known-bad candidate, for a release."""
    with closing(Store(settings)) as store, store.writing() as connection:
        results = {name: list(gates) for name, gates in caught.items()}
        record_audit_event(connection, SELFTEST, release, case=case, caught=results)
