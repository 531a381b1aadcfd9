"""Verification of the audit chain, also against heads that were anchored outside the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import select

from services.store.audit import COLUMNS
from services.store.audit_chain import GENESIS, record_digest
from services.store.database import Store
from services.store.database import audit_events as table
from tasks.core.config import Result

BATCH = 20_000  # records in memory
FIELDS = itemgetter(*COLUMNS)


class Head(Result):
    """The last record of a chain at some moment."""

    id: int  # 0: the chain is empty
    digest: str
    at: datetime | None = None  # when it was anchored
    stamp: str = ""  # RFC 3161 time stamp, in base64; empty: none


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
    expected: dict[int, set[str]] = {}
    for anchor in anchors:
        if anchor.id:  # one of an empty chain holds for any
            expected.setdefault(anchor.id, set()).add(anchor.digest)
    for row in _rows(store):
        tampering = None if _follows(row, number, digest) else _check(row, number, digest)
        if tampering is None and row[0] in expected and expected[row[0]] != {row[-1]}:
            tampering = Tampering(id=row[0], finding="its anchor has another digest: the chain was written anew")
        if tampering is not None:
            break
        number, digest = row[0], row[-1]
    last = max(expected, default=0)
    if tampering is None and last > number:
        tampering = Tampering(id=number + 1, finding=f"removed, with all after it: record {last} was anchored")
    head = Head(id=number, digest=digest)
    return Verification(records=number, head=head, anchors=len(anchors), tampering=tampering)


def _follows(row: tuple[Any, ...], before: int, digest: str) -> bool:
    """Whether nothing is wrong with the record after record `before` of this digest; few steps, of a million each."""
    text = row[-2].encode()
    if row[0] != before + 1 or sha256(text).hexdigest() != row[-1]:
        return False
    try:
        record = orjson.loads(text)
        return bool(record["previous"] == digest and FIELDS(record) == row[:-2])
    except (ValueError, KeyError, TypeError):
        return False


def _check(row: tuple[Any, ...], before: int, digest: str) -> Tampering | None:
    """What is wrong with the record after record `before` of this digest; None when it is as it was written."""
    number = before + 1
    if row[0] > number:
        return Tampering(id=number, finding="removed")
    if row[0] < number:
        return Tampering(id=row[0], finding="inserted before the first")
    text, own = row[-2:]
    if record_digest(text) != own:
        return Tampering(id=number, finding="edited: it does not match its digest")
    try:
        record = orjson.loads(text)
        values, previous = FIELDS(record), record["previous"]
    except (ValueError, KeyError, TypeError):
        return Tampering(id=number, finding="replaced: it is no audit record")
    if record["id"] != number:
        return Tampering(id=number, finding=f"removed or reordered: record {record['id']} stands in its place")
    if previous != digest:
        finding = f"replaced, or records were inserted, removed or reordered after it: record {number} follows another"
        return Tampering(id=before or 1, finding=finding)
    if values != row[:-2]:
        column = next(name for name, copied in zip(COLUMNS, row, strict=False) if record[name] != copied)
        return Tampering(id=number, finding=f"edited: its column {column} differs from its text")
    return None


def _rows(store: Store) -> Iterator[tuple[Any, ...]]:
    """Each record's copies, in the order of COLUMNS, its text and its digest, as the driver has them.

    SQLAlchemy's rows would take half of the time of a verification.
    """
    columns = *(table.c[name] for name in COLUMNS), table.c.record, table.c.digest
    query, last = select(*columns).order_by(table.c.id).limit(BATCH), None
    with store.reading() as connection, closing(connection.connection.cursor()) as cursor:
        while True:
            part = query if last is None else query.where(table.c.id > last)
            cursor.execute(str(part.compile(connection, compile_kwargs={"literal_binds": True})))
            rows = cursor.fetchall()
            yield from rows
            if len(rows) < BATCH:
                return
            last = rows[-1][0]
