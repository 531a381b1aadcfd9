"""Verification of the audit chain, and anchors: heads of the chain that are stored outside the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import select

from services.store.audit import COLUMNS
from services.store.audit_chain import GENESIS, record_digest
from services.store.database import Store
from services.store.database import audit_events as table
from tasks.core.config import Result
from tasks.core.errors import InputError

BATCH = 20_000  # records in memory
FIELDS = itemgetter(*COLUMNS)


class Head(Result):
    """The last record of a chain at some moment."""

    id: int  # 0: the chain is empty
    digest: str
    at: datetime | None = None  # when it was anchored


class Tampering(Result):
    """The first record of a chain that is not as it was written."""

    id: int
    finding: str  # a sentence


class Verification(Result):
    """What a verification found."""

    records: int
    head: Head
    anchors: int  # how many were compared
    tampering: Tampering | None

    @property
    def intact(self) -> bool:
        return self.tampering is None


def chain_head(store: Store) -> Head:
    with store.reading() as connection:
        last = connection.execute(select(table.c.id, table.c.digest).order_by(table.c.id.desc()).limit(1)).first()
    return Head(id=last.id, digest=last.digest) if last else Head(id=0, digest=GENESIS)


def verify_chain(store: Store, anchors: tuple[Head, ...] = ()) -> Verification:
    """Check every record against its digest, its copies in columns, the record before it, and the anchors."""
    number, digest, tampering = 0, GENESIS, None
    expected = {anchor.id: anchor.digest for anchor in anchors if anchor.id}  # one of an empty chain holds for any
    for row in _rows(store):
        tampering = _check(row, number, digest)
        if tampering is None and expected.get(row.id, row.digest) != row.digest:
            tampering = Tampering(id=row.id, finding="its anchor has another digest: the chain was written anew")
        if tampering is not None:
            break
        number, digest = row.id, row.digest
    last = max(expected, default=0)
    if tampering is None and last > number:
        tampering = Tampering(id=number + 1, finding=f"removed, with all after it: record {last} was anchored")
    head = Head(id=number, digest=digest)
    return Verification(records=number, head=head, anchors=len(anchors), tampering=tampering)


def _check(row: Any, before: int, digest: str) -> Tampering | None:
    """What is wrong with the record after record `before` of this digest; None when it is as it was written."""
    number = before + 1
    if row.id > number:
        return Tampering(id=number, finding="removed")
    if row.id < number:
        return Tampering(id=row.id, finding="inserted before the first")
    if record_digest(row.record) != row.digest:
        return Tampering(id=number, finding="edited: it does not match its digest")
    try:
        record = orjson.loads(row.record)
        values, previous = FIELDS(record), record["previous"]
    except (ValueError, KeyError, TypeError):
        return Tampering(id=number, finding="replaced: it is no audit record")
    if record["id"] != number:
        return Tampering(id=number, finding=f"removed or reordered: record {record['id']} stands in its place")
    if previous != digest:
        finding = f"replaced, or records were inserted, removed or reordered after it: record {number} follows another"
        return Tampering(id=before or 1, finding=finding)
    if values != row[: len(COLUMNS)]:
        column = next(name for name, copied in zip(COLUMNS, row, strict=False) if record[name] != copied)
        return Tampering(id=number, finding=f"edited: its column {column} differs from its text")
    return None


def _rows(store: Store) -> Iterator[Any]:
    """Each record's copies, in the order of COLUMNS, its text and its digest."""
    columns = *(table.c[name] for name in COLUMNS), table.c.record, table.c.digest
    query, last = select(*columns).order_by(table.c.id).limit(BATCH), None
    with store.reading() as connection:
        while True:
            rows = connection.execute(query if last is None else query.where(table.c.id > last)).all()
            yield from rows
            if len(rows) < BATCH:
                return
            last = rows[-1].id


def write_anchor(head: Head, path: Path) -> None:
    """Append the head to a file, one line a head; the file belongs where those who can change the database can't."""
    line = head.model_copy(update={"at": datetime.now(UTC)}).model_dump_json()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise InputError("The anchor can't be written.", where=str(path), found=str(error)) from error


def read_anchors(path: Path) -> tuple[Head, ...]:
    """The heads in a file. Raises: InputError when it can't be read, or a line is no anchor."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(Head.model_validate_json(line) for line in lines if line.strip())
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(
            "The file of anchors can't be read.",
            where=str(path),
            found=str(error).splitlines()[0],
            allowed="lines that driftline audit anchor wrote",
        ) from error
