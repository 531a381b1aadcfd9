"""`driftline card` and `driftline report`: documents from stored evidence alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.console import console
from tasks.core.display import escape_terminal
from tasks.core.files import write_text
from tasks.core.settings import settings

if TYPE_CHECKING:
    from services.store.audit import AuditEvent
    from services.store.database import Store
    from tasks.govern.evidence import Evidence
    from tasks.govern.frameworks import Framework


def write_card(release: str, out: Path | None) -> None:
    """Print the model card of a release, or write it to a file."""
    from tasks.govern.card import model_card

    case, _, digest = release.partition(":")
    _deliver("card", model_card(read_evidence(case, digest or None)), case, out)


def write_report(case: str, framework: Framework, out: Path | None) -> None:
    """Print the report on the champion of a case, or write it to a file."""
    from tasks.govern.frameworks import report

    _deliver(f"report on {framework}", report(framework, read_evidence(case, None)), case, out)


def _deliver(what: str, text: str, case: str, out: Path | None) -> None:
    """Print the text, or write it and record that it was exported."""
    if out is None:
        print(escape_terminal(text), end="")
        return
    from services.store.audit import record_audit_event
    from services.store.audit_chain import record_digest
    from services.store.database import Store

    write_text(out, text)
    with closing(Store(settings())) as store, store.writing() as connection:
        record_audit_event(connection, "evidence.export", record_digest(text), case=case, what=what)
    console.print(f"wrote {out}", markup=False)


def read_evidence(case: str, reference: str | None) -> Evidence:
    """All that is stored of a release. Raises: InputError when there is no such release."""
    from cli.audit import ANCHOR
    from cli.show import find_release
    from flows.case import load_case
    from services.store.audit import audit_events
    from services.store.audit_verify import verify_chain
    from services.store.database import Store
    from tasks.govern.evidence import Decision, Evidence
    from tasks.release.seal import verify

    config = settings()
    loaded = load_case(case, config.cases)
    manifest = verify(find_release(case, reference).folder)
    with closing(Store(config)) as store:
        chain = verify_chain(store)
        events = audit_events(store, case)
        anchored = bool(audit_events(store, "", None, ANCHOR))
        usage = _usage(store, case, manifest)
    decisions = tuple(
        Decision(
            id=event.id,
            at=f"{event.at:%Y-%m-%d %H:%M:%S}",
            by=event.by,
            actor_kind=event.actor_kind,
            action=event.action,
            details=event.details,
        )
        for event in events
    )
    tampering = f"record {chain.tampering.id}: {chain.tampering.finding}" if chain.tampering else ""
    return Evidence(
        case=case,
        description=loaded.description,
        manifest=manifest,
        decisions=decisions,
        records=chain.records,
        head=chain.head.digest,
        tampering=tampering,
        anchored=anchored,
        monitored=_monitored(events),
        approval_required=loaded.approval is not None,
        **usage,
    )


def _monitored(events: Sequence[AuditEvent]) -> str:
    """The latest decision of monitoring, in words."""
    from services.store.decisions import MONITOR

    decided = [event for event in events if event.action == MONITOR]
    return f"{decided[-1].details['decision']} (record {decided[-1].id})" if decided else ""


def _usage(store: Store, case: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Cost and energy of the release's training, and how many answers it gave."""
    from sqlalchemy import func, select

    from services.store.database import usage_records
    from services.store.training import TRAINING
    from tasks.release.config import NANO

    columns = usage_records.c
    id_ = f"{TRAINING}-{manifest['recorded']['run_id']}"[:40]
    with store.reading() as connection:
        row = connection.execute(select(usage_records).where(columns.id == id_)).mappings().first()
        of_release = (columns.case == case) & (columns.digest == manifest["digest"])
        count = connection.execute(select(func.count()).where(of_release)).scalar_one()
    training = {} if row is None else {"training_seconds": row["seconds"], "training_price": row["price"] / NANO}
    return {**training, "energy_wh": row["energy_wh"] if row else None, "requests": int(count)}
