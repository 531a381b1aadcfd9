"""`driftline card` and `driftline report`: documents from stored evidence alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from services.store.audit import record_audit_event
from services.store.audit_chain import record_digest
from services.store.database import Store
from tasks.core.console import console
from tasks.core.display import escape_terminal
from tasks.core.files import file_digest, write_text
from tasks.core.settings import ROOT, settings
from tasks.release.seal import release_folder

if TYPE_CHECKING:
    from services.store.audit import AuditEvent
    from tasks.govern.evidence import Evidence
    from tasks.govern.frameworks import Framework
    from tasks.govern.report_folder import ChainEntry

CardForm: TypeAlias = Literal["markdown", "html", "croissant", "sbom"]
EXPORT = "evidence.export"


def write_card(release: str, form: CardForm, out: Path | None) -> None:
    """Print a card of a release, or write it to a file."""
    from tasks.govern.card import model_card

    case, _, digest = release.partition(":")
    evidence = read_evidence(case, digest or None)
    text = model_card(evidence) if form == "markdown" else _other_form(form, evidence)
    deliver(f"card, {form}", text, case, out)


def _other_form(form: CardForm, evidence: Evidence) -> str:
    from tasks.govern.card import model_card
    from tasks.govern.data_card import data_card
    from tasks.govern.pages import markdown_page
    from tasks.govern.plots import card_plots
    from tasks.govern.sbom import sbom

    folder = release_folder(settings().state, evidence.case, evidence.digest)
    if form == "html":
        title = f"{evidence.case} {evidence.digest[:12]}"
        return markdown_page(title, model_card(evidence), card_plots(evidence, folder))
    if form == "croissant":
        return data_card(evidence, _snapshot(evidence))
    return sbom(evidence, _lock(evidence))


def write_report(case: str, framework: Framework, out: Path | None, folder: Path | None) -> None:
    """Print the report on the champion of a case, or write it to a file or as a folder."""
    from tasks.govern.frameworks import report

    evidence, what = read_evidence(case, None), f"report on {framework}"
    if folder is None:
        deliver(what, report(framework, evidence), case, out)
        return
    from tasks.govern.report_folder import Sources, write_folder

    with closing(Store(settings())) as store:
        release = release_folder(settings().state, case, evidence.digest)
        sources = Sources(release, _snapshot(evidence), _lock(evidence), _chain(store, case))
        digest = write_folder(framework, evidence, sources, folder)
    _record_export(digest, case, what)
    console.print(f"wrote {folder}; check it anywhere: python {folder / 'check.py'}", markup=False, soft_wrap=True)


def deliver(what: str, text: str, case: str, out: Path | None) -> None:
    """Print the text, or write it and record that it was exported."""
    if out is None:
        print(escape_terminal(text), end="")
        return
    write_text(out, text)
    _record_export(record_digest(text), case, what)
    console.print(f"wrote {out}", markup=False)


def _record_export(digest: str, case: str, what: str) -> None:
    with closing(Store(settings())) as store, store.writing() as connection:
        record_audit_event(connection, EXPORT, digest, case=case, what=what)


def _snapshot(evidence: Evidence) -> Path | None:
    """The folder of the release's snapshot, unless it is gone or was changed."""
    import yaml

    from tasks.data.snapshots import content_digest

    text = evidence.recorded.get("snapshot") or ""
    name = str((yaml.safe_load(text) or {}).get("outs", [{}])[0].get("path", "-"))
    folder = settings().state / "store" / "snapshots" / evidence.case / Path(name).name
    return folder if folder.is_dir() and content_digest(folder) == evidence.sealed["data"] else None


def _lock(evidence: Evidence) -> str | None:
    """The text of the sealed lock file, if it is that of this code."""
    path = ROOT / "requirements.lock"
    is_sealed = path.is_file() and file_digest(path) == evidence.sealed["lock"]
    return path.read_text(encoding="utf-8") if is_sealed else None


def _chain(store: Store, case: str) -> Iterator[ChainEntry]:
    """All records in order; those of other cases without their texts."""
    from services.store.audit import chain_entries
    from tasks.govern.report_folder import ChainEntry

    for number, of_case, digest, record in chain_entries(store):
        yield ChainEntry(number, digest, record if of_case in (case, "") else None)


def read_evidence(case: str, reference: str | None) -> Evidence:
    """All that is stored of a release. Raises: InputError when there is no such release."""
    from cli.audit import ANCHOR
    from cli.show import find_release
    from flows.case import load_case
    from services.store.audit import audit_events
    from services.store.audit_verify import verify_chain
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
