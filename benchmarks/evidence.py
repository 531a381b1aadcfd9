"""What evidence costs: of a run, of a request, to verify the audit log, and to explain one request among many.

    python -m benchmarks.evidence [--quick] [--json FILE] [--records 1000000] [--requests 1000000]

It writes a store of its own, which it removes. The quick run has 20,000 of both.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.table import Report, arguments
from services.gateway.call import Call
from services.gateway.explanation import explain_request
from services.gateway.log_redaction import LogRedaction
from services.gateway.request_log import COLUMNS, NUMBERS, SECONDS, RequestLog, pack
from services.rollout.routing import Route, Share
from services.store.audit import record_audit_event
from services.store.audit_chain import canonical_record, record_digest
from services.store.audit_verify import chain_head, verify_chain
from services.store.database import DAY, DONE, USAGE_COLUMNS, Store, audit_events, usage_records
from services.store.decisions import RunFacts, record_run
from services.store.keys import LOCAL_KEY
from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.core.settings import Settings
from tasks.govern.openlineage import RunLineage, add_output, emitting
from tasks.release.config import Price
from tasks.release.seal import release_folder
from tasks.release.signature import sign_release

BATCH = 10_000
CALLS = 200  # timed
RUNS = 20
LOGGED = 10_000  # requests


def main() -> None:
    options = arguments(
        "What evidence costs.",
        records="audit records; default: 1000000, quick: 20000",
        requests="logged requests of one day; default: 1000000, quick: 20000",
    )
    records, requests = (
        int(each or (20_000 if options.quick else 1_000_000)) for each in (options.records, options.requests)
    )
    required = {
        "run_seconds": "under 0.3: at most 3 % of a run of 10 seconds",
        "request_ms": "under 0.3, in the gateway's process",
        "verify_seconds": "under 30 of 1,000,000 records",
        "why_seconds": "under 1 of 1,000,000 requests",
    }
    report = Report("Evidence", ["what", "of", "seconds"], required)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state=Path(folder))
        with closing(Store(settings)) as store:
            record_seconds = _time_records(store)
            report.row("record a decision", f"{CALLS} transactions, median", record_seconds)
            run_seconds = _time_run(settings)
            report.row("record a run: audit, OpenLineage, signature", f"{RUNS} runs, median", run_seconds)
            request_seconds = _time_request(settings.state / "timed")
            report.row("log a request, its writing included", f"{LOGGED:,} requests, mean", request_seconds)
            _fill_chain(store, records)
            started = time.perf_counter()
            found = verify_chain(store)
            verify_seconds = time.perf_counter() - started
            if not found.intact or found.records < records:
                raise SystemExit(f"The chain is not intact: {found}")
            report.row("verify the audit log", f"{found.records:,} records", verify_seconds)
            chosen = _fill_requests(store, settings, requests)
        started = time.perf_counter()
        explanation = explain_request(chosen, settings)
        why_seconds = time.perf_counter() - started
        if not explanation.answer:
            raise SystemExit("The request was not found in the log.")
        report.row("explain one request", f"{requests:,} logged requests", why_seconds)
    report.figure("record_ms", 1000 * record_seconds)
    report.figure("run_seconds", run_seconds)
    report.figure("request_ms", 1000 * request_seconds)
    report.figure("verify_seconds", verify_seconds)
    report.figure("why_seconds", why_seconds)
    report.finish(["duckdb", "rfc8785", "sqlalchemy"], options.json)


def _time_records(store: Store) -> float:
    """Seconds of an audit event within the transaction of its decision, without the transaction itself."""
    seconds = []
    for number in range(CALLS):
        with store.writing() as connection:
            started = time.perf_counter()
            record_audit_event(connection, "share.set", "d" * 64, case="shop", reason=f"number {number}", percent=5)
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[CALLS // 2]


def _time_run(settings: Settings) -> float:
    """Seconds that its records, events and signature add to a run; the first, with imports, counts as all others."""
    key, seconds = b64encode(secrets.token_bytes(32)).decode(), []
    folder = settings.state / "signed"
    folder.mkdir()
    for number in range(RUNS):
        config = f"{number:064d}"
        lineage = dict.fromkeys(("commit", "lock_digest"), "f" * 64) | {"dirty": "false", "case_digest": config}
        facts = RunFacts("shop", "release", "", "2024-06-01", "run", lineage, {"train": config})
        started = time.perf_counter()
        with emitting(RunLineage("release", "shop", "f" * 40, settings.state)):
            record_run(facts, settings)
            with closing(Store(settings)) as store:
                for action in ("data.validate", "verdict.record", "release.promote"):
                    with store.writing() as connection:
                        record_audit_event(connection, action, "d" * 64, case="shop", reason="released")
            add_output("shop/release", "d" * 64)
            sign_release(folder, "d" * 64, key)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[RUNS // 2]


def _time_request(folder: Path) -> float:
    """Seconds of one call in the request log: taking it, redacting it, and writing it as Parquet."""
    settings = Settings(state=folder)
    redact = LogRedaction(settings.gateway_log).redact_for_log
    log = RequestLog(folder, "worker", redact, lambda: None)
    share = Share(Route("d" * 64, "shop", "tabular", (), Price(machine_hour=3.6)), "champion")
    body = b'{"rows": [{"age": 39, "limit_bal": 50000}]}'
    started = time.perf_counter()
    for _ in range(LOGGED):
        log.put(Call("predict", LOCAL_KEY, share, request_body=body, response_body=b'{"predictions": [0.25]}'))
    log.close()
    if log.lost:
        raise SystemExit(f"The log lost {log.lost} calls.")
    return (time.perf_counter() - started) / LOGGED


def _fill_chain(store: Store, count: int) -> None:
    """Valid records, in batches: one transaction each would take longer than all that is measured."""
    head = chain_head(store)
    number, previous = head.id, head.digest
    while number < count:
        rows = []
        for _ in range(min(BATCH, count - number)):
            number += 1
            row = {"id": number, "at": 1.5e9 + number, "actor_kind": "person", "actor": "anna", "action": "share.set"}
            row |= {"case": "shop", "subject": "d" * 64}
            details = {"reason": f"number {number}", "percent": 5, "before": "c" * 64}
            record = canonical_record({**row, "details": details, "previous": previous})
            previous = record_digest(record)
            rows.append(row | {"record": record, "digest": previous})
        with store.writing() as connection:
            connection.execute(insert(audit_events), rows)


def _fill_requests(store: Store, settings: Settings, count: int) -> str:
    """Requests of one day to one release, settled and logged as the gateway does; returns one from the middle."""
    verdict: dict[str, Any] = {"decision": "promote", "digest": "e" * 64, "champion": None, "criteria": []}
    sealed: dict[str, Any] = {
        "case": "busy",
        "kind": "tabular",
        "as_of": "2024-06-01T00:00:00+00:00",
        "verdict": verdict,
        "files": {},
    }
    sealed |= dict.fromkeys(("commit", "lock", "config", "data", "definitions", "weights"), "f" * 64) | {"dirty": False}
    digest = digest_of(sealed)
    manifest = {"digest": digest, "sealed": sealed, "recorded": {"run_id": "run"}}
    write_text(release_folder(settings.state, "busy", digest) / "manifest.json", json.dumps(manifest))
    ids = [f"req-{secrets.token_hex(12)}" for _ in range(count)]
    first = 19_000 * DAY
    usage = dict.fromkeys(("reserved", "retries", *USAGE_COLUMNS), 0) | {"state": DONE, "status": 200, "budgets": []}
    usage |= {"day": 19_000, "worker": "w", "interface": "predict", "team": "t", "key": "k", "case": "busy"}
    usage |= {"digest": digest, "role": "champion"}
    line: dict[str, Any] = dict.fromkeys(COLUMNS, "") | dict.fromkeys((*NUMBERS, *SECONDS), 0)
    line |= {name: usage[name] for name in ("interface", "state", "team", "key", "case", "digest", "role")}
    line |= {"request": '{"rows": [{"age": 39}]}', "response": '{"predictions": [0]}', "retrieval": None}
    for start in range(0, count, BATCH // 2):
        part = [(id_, first + (start + i) * DAY / count) for i, id_ in enumerate(ids[start : start + BATCH // 2])]
        with store.writing() as connection:
            connection.execute(insert(usage_records), [usage | {"id": id_, "at": at} for id_, at in part])
        pack((json.dumps(line | {"id": id_, "at": at}) for id_, at in part), settings.state / "gateway" / "requests")
    return ids[count // 2]


if __name__ == "__main__":
    main()
