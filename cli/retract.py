"""`driftline retract`: a person's right to be forgotten. It lists where a row is; with --confirm it removes the row."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.case import LanguageCase, TabularCase, load_case
from services.gateway.retraction import find_calls, find_feedback, forget_calls, forget_feedback, requests_folder
from services.store.audit import record_audit_event
from services.store.database import Store
from tasks.core.console import PlainTable, console
from tasks.core.errors import DriftlineError, InputError
from tasks.core.settings import Settings, settings
from tasks.data.retracted import Retracted, new_retraction, read_retracted, write_retracted
from tasks.data.snapshots import remove_snapshots
from tasks.govern.retraction import Finding, Row, affected_snapshots, example_ids, find_row, remove_finding

RETRACT = "row.retract"
REMAINING = (
    "the source that the case reads: remove the row there; a run leaves it out whether it is there or not",
    "usage records: they have no values of rows",
    "backups of the state folder, and copies that were exported: remove or expire them yourself",
)


@dataclass(frozen=True)
class Traces:
    """All that was found of a row."""

    files: list[Finding]
    online: dict[Path, int]  # values by online store
    calls: dict[Path, set[str]]  # ids by file of the request log
    feedback: list[int]
    predicted: dict[str, dict[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """By part; only what there is."""
        counts: Counter[str] = Counter(finding.part for finding in self.files)
        others: dict[str, int] = {
            "online values": sum(self.online.values()),
            "logged calls": sum(map(len, self.calls.values())),
        }
        others |= {"feedback": len(self.feedback), "predicted classes": len(self.predicted)}
        return {name: count for name, count in {**counts, **others}.items() if count}


def retract(case: str, key: str, source: str | None, *, confirm: bool) -> None:
    """List the traces of a row; with `confirm` remove them, train again, and record the proof.

    What was removed stays removed when it is killed; the same command then does the rest.
    Raises: InputError for a case without such a key; DriftlineError when something is left at the end.
    """
    config = settings()
    row = find_key(load_case(case, config.cases), key, source)
    raw = config.data / "raw" / case
    known = next((each for each in read_retracted(raw) if each.matches(row.columns, row.values)), None)
    traces = find_traces(row, config, known)
    _print(traces)
    if not confirm:
        console.print("Nothing was changed. Remove what can be removed, and train again: --confirm")
        return
    retracted = _remember(row, raw, config, known)
    must_train = _champion_has(case, traces, config)
    _remove(row, traces, config, spare_releases=must_train)
    if must_train:
        _train_again(case, config)
        _remove(row, find_traces(row, config, retracted), config, spare_releases=False)
    left = find_traces(row, config, retracted)
    _prove(row, retracted, (traces, left), config)


def find_key(case: TabularCase | LanguageCase, key: str, name: str | None) -> Row:
    """The row that a key names in a source of the case. Raises: InputError."""
    keyed = {each: source.key for each, source in case.data.sources.items() if source.key}
    if name is None and len(set(keyed.values())) == 1:
        name = next(iter(keyed))
    if name not in keyed:
        allowed = ", ".join(f"{each} ({', '.join(columns)})" for each, columns in keyed.items())
        raise InputError(
            f"The case {case.name} has {'several sources' if name is None and keyed else 'no such source'} with a key.",
            where=f"data.sources of {case.name}",
            found=name or ", ".join(keyed) or "no source with a key",
            allowed=allowed or "a source with a key",
            todo="Name one of these: --source",
        )
    columns = tuple(keyed[name])
    values = tuple(key.split(",")) if len(columns) > 1 else (key,)
    if len(values) != len(columns) or not all(values):
        raise InputError("The row is not named by its whole key.", where="--row", found=key, allowed=",".join(columns))
    return Row(case=case.name, columns=columns, values=values)


def find_traces(row: Row, config: Settings, known: Retracted | None) -> Traces:
    from tasks.features.online import find_entity

    examples = example_ids(row, config.state)
    stores = sorted((config.state / "features" / row.case).glob("online-*/"))
    with closing(Store(config)) as store:
        numbers, predicted = find_feedback(store, row, examples)
    return Traces(
        files=find_row(row, config, known.snapshots if known else ()),
        online={path: count for path in stores if (count := find_entity(path, row.named, delete=False))},
        calls=find_calls(requests_folder(config), row, examples),
        feedback=numbers,
        predicted=predicted,
    )


def _print(traces: Traces) -> None:
    table = PlainTable("part", "where", "")
    for finding in traces.files:
        table.add_row(finding.part, str(finding.path), finding.reason)
    for path, count in traces.online.items():
        table.add_row("online store", str(path), f"has {count} values of it")
    for path, ids in traces.calls.items():
        table.add_row("request log", str(path), f"{len(ids)} calls name it")
    if traces.feedback or traces.predicted:
        table.add_row("store", "feedback, predictions", f"{len(traces.feedback)} and {len(traces.predicted)} name it")
    console.print(table)
    redis = ("the online store in Redis: delete the key there",) if settings().online_store else ()
    for each in (*REMAINING, *redis):
        console.print(f"  not touched: {each}", markup=False)


def _remember(row: Row, raw: Path, config: Settings, known: Retracted | None) -> Retracted:
    """Enter the row in the list before anything is deleted: from now on no run reads it."""
    entry = known or new_retraction(row.columns, row.values)
    had = tuple(sorted({*entry.snapshots, *affected_snapshots(row, config.state)}))
    entry = entry.model_copy(update={"snapshots": had})
    others = tuple(each for each in read_retracted(raw) if each.digest != entry.digest)
    write_retracted(raw, (*others, entry))
    if known is None:
        with closing(Store(config)) as store, store.writing() as connection:
            record_audit_event(connection, "row.retract_begin", entry.digest, case=row.case, columns=list(row.columns))
    return entry


def _champion_has(case: str, traces: Traces, config: Settings) -> bool:
    from tasks.release.registry import load_champion

    champion = load_champion(config.tracking, config.state, case)
    return champion is not None and any(finding.path == champion.folder for finding in traces.files)


def _remove(row: Row, traces: Traces, config: Settings, *, spare_releases: bool) -> None:
    from tasks.features.online import find_entity

    for path in traces.online:
        find_entity(path, row.named, delete=True)
    for path, ids in traces.calls.items():
        if path.suffix == ".parquet":  # lines are packed within a minute
            forget_calls(path, ids)
    with closing(Store(config)) as store:
        forget_feedback(store, traces.feedback, traces.predicted)
    snapshots = [finding.path for finding in traces.files if finding.part == "snapshot"]
    if snapshots:
        remove_snapshots(snapshots, config.state / "store", config.remote)
    if not spare_releases:
        _stop(row.case, config)
    for finding in traces.files:
        if not (spare_releases and finding.part == "release"):
            remove_finding(finding)


def _stop(case: str, config: Settings) -> None:
    """The processes of earlier releases; the champion's runs on."""
    from services.rollout.history import active_shares
    from services.rollout.shares import sync_endpoints
    from services.runtime import stack

    with closing(Store(config)) as store:
        used = [str(share["digest"]) for share in active_shares(store) if share["case"] == case]
        stack.retire_releases(config, case, used)
        sync_endpoints(store, config)


def _train_again(case: str, config: Settings) -> None:
    """A new champion from data without the row. Raises: GateFailed when no candidate passes."""
    from cli.terminal import run_flow_with_progress
    from flows.reproduce import sealed_profile
    from tasks.release.registry import require_champion
    from tasks.release.seal import read_manifest

    champion = require_champion(case, config.tracking, config.state)
    digest = read_manifest(champion.folder)["sealed"]["config"]
    try:
        profile = sealed_profile(case, config.cases, digest)
    except InputError:  # the configuration has changed since: the case as it is
        profile = None
    run_flow_with_progress("release", case, None, profile)


def _prove(row: Row, retracted: Retracted, traces: tuple[Traces, Traces], config: Settings) -> None:
    before, left = traces
    with closing(Store(config)) as store, store.writing() as connection:
        record_audit_event(
            connection,
            RETRACT,
            retracted.digest,
            case=row.case,
            columns=list(row.columns),
            salt=retracted.salt,
            snapshots=list(retracted.snapshots),
            removed=before.counts,
            left=left.counts,
        )
    if left.counts:
        raise DriftlineError(
            "Some of the row is left.",
            found=", ".join(f"{count} {name}" for name, count in left.counts.items()),
            todo="Run the command again; lines of the request log are packed within a minute.",
        )
    print(f"nothing of the row is left; proof: audit record of {retracted.digest}")
