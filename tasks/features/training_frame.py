"""Builds the frame that a model learns from or predicts on: examples, each with its features as of its own moment."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import CaseError, NotReady
from tasks.core.files import lock, write_text
from tasks.core.progress import mark_cached
from tasks.data.results import Snapshot
from tasks.features.config import Features
from tasks.features.definitions import make_repository
from tasks.features.results import Column, Frame
from tasks.features.schema import Tables, describe_tables
from tasks.features.sql import dump_yaml
from tasks.features.tables import build_tables

if TYPE_CHECKING:
    from tasks.features.schema import Table


def build_frame(
    features: Features,
    target: str,
    slices: tuple[str, ...],
    snapshot: Snapshot,
    state: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    known_only: bool = True,
) -> Frame:
    """Join each example of start <= event_timestamp < end with the features known at its event_timestamp.

    The file is named by all that goes into it and kept, so that a second call only reads its summary. Numbers in it are
    doubles, whatever their type in the SQL. `known_only` leaves out examples whose target is empty.

    Raises: CaseError when the SQL fails or its columns don't fit; NothingYet when no example is left; DataError when
    ids repeat.
    """
    window = [moment.isoformat() if moment else None for moment in (start, end)]
    key = cache_key(__name__, [features.digest, snapshot.digest, snapshot.case, target, slices, *window, known_only])
    path = state / "frames" / f"{key}.parquet"
    with lock(state / "features" / snapshot.case / ".lock", "The case's features", wait=True):
        if frame := _made_before(path):
            mark_cached()
            return frame
        tables = describe_tables(features, snapshot, state)
        columns = feature_columns(features, tables, target, slices)
        build_tables(tables, snapshot)
        rows = _example_rows(features, tables, target, slices, start, end, known_only)
        if tables.views:
            _join(features, snapshot, tables, rows, path)
        else:
            with connect() as connection, dump_yaml(path) as temporary:
                connection.execute(f"COPY ({rows}) TO {quote_literal(temporary)} (FORMAT parquet)")
        with connect() as connection:
            count, first, last = connection.execute(
                f"SELECT count(*), min(event_timestamp), max(event_timestamp) FROM {scan_parquet(path)}"
            ).fetchall()[0]
        if not count:
            path.unlink()
            raise NotReady(
                "No example is left.",
                where=f"{snapshot.case} as of {snapshot.as_of:%Y-%m-%d %H:%M}",
                found=f"0 of them {_named(start, end)}{f' with a known {target}' if known_only else ''}",
                todo="Take another window or a later as-of.",
            )
        frame = Frame(
            path=path,
            data_digest=snapshot.digest,
            definitions_digest=features.digest,
            rows=count,
            columns=columns,
            start=first,
            end=last,
        )
        write_text(path.with_suffix(".json"), frame.model_dump_json(indent=1))
    return frame


def _made_before(path: Path) -> Frame | None:
    with contextlib.suppress(OSError, ValueError):
        frame = Frame.model_validate_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        return frame.model_copy(update={"path": path}) if path.is_file() else None
    return None


def feature_columns(features: Features, tables: Tables, target: str, slices: tuple[str, ...]) -> tuple[Column, ...]:
    """What the model will see, in order: the request's columns, then each view's.

    Raises: CaseError when two of them share a name, or the target or a slice is missing.
    """
    examples = tables.examples
    columns = [_column(examples, name, "request", ()) for name in features.request]
    columns += [_column(view, name, view.name, view.keys) for view in tables.views for name in view.features]
    origins: dict[str, list[str]] = {}
    for column in columns:
        origins.setdefault(column.name, []).append(column.origin)
    for column in columns:
        if column.origin != "request" and column.name in examples.columns:
            origins[column.name].append("examples")
    twice = {name: places for name, places in origins.items() if len(places) > 1}
    if twice:
        raise CaseError(
            "Features share a name.",
            where="features",
            found="; ".join(f"{name} in {' and '.join(places)}" for name, places in twice.items()),
            allowed="each name once in examples and views",
            todo="Rename it in one query. A slice may name a view's feature: it need not stand in examples, too.",
        )
    if examples.columns.get(target) not in ("number", "text") or target in origins:
        raise CaseError(
            f"The target {target} is " + ("a feature, too." if target in origins else "no value of the examples."),
            where="target.column",
            found=f"columns of examples: {', '.join(f'{n} ({k})' for n, k in examples.columns.items())}",
            allowed="a number, boolean or text that is no feature",
            todo="Give it in the SQL of examples (empty while unknown), and keep it out of request and views.",
        )
    missing = [name for name in slices if name not in examples.columns and name not in origins]
    if missing:
        raise CaseError(
            f"Slices name columns that are not there: {', '.join(missing)}.",
            where="evaluate.slices",
            found=", ".join(missing),
            allowed=", ".join(dict.fromkeys([*examples.columns, *origins])),
            todo="Add the column to the SQL of examples, or correct the slice.",
        )
    return tuple(columns)


def _column(table: Table, name: str, origin: str, keys: tuple[str, ...]) -> Column:
    return Column(name=name, kind="text" if table.columns[name] == "text" else "number", origin=origin, entities=keys)


def _example_rows(
    features: Features,
    tables: Tables,
    target: str,
    slices: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    known_only: bool,
) -> str:
    """The query for the examples, in the order of their file: by event_timestamp and example_id."""
    names = dict.fromkeys(["example_id", "event_timestamp", *tables.join_keys, *slices, *features.request, target])
    selected = ", ".join(quote_identifier(name) for name in names if name in tables.examples.columns)
    bounds = [
        f"event_timestamp {sign} {quote_literal(at.isoformat())}::TIMESTAMPTZ"
        for sign, at in ((">=", start), ("<", end))
        if at
    ]
    if known_only:
        bounds.append(f"{quote_identifier(target)} IS NOT NULL")
    examples = scan_parquet(tables.path(tables.examples))
    return f"SELECT {selected} FROM {examples} WHERE {' AND '.join(bounds) or 'true'}"


def _join(features: Features, snapshot: Snapshot, tables: Tables, rows: str, path: Path) -> None:
    """Let Feast join; it takes the rows as a query, and our offline store writes what it finds straight to Parquet."""
    store = make_repository(tables.folder, f"{snapshot.case}_{features.digest[:12]}", snapshot.case, tables)
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    # Without the filter, a value would count from the time it is about, though it was published later.
    job = store.get_historical_features(
        entity_df=rows, features=store.get_feature_service(snapshot.case), filter_by_created_timestamp=True
    )
    job.persist(SavedDatasetFileStorage(path=str(path)), allow_overwrite=True)


def _named(start: datetime | None, end: datetime | None) -> str:
    parts = [f"from {start:%Y-%m-%d %H:%M}" if start else "", f"before {end:%Y-%m-%d %H:%M}" if end else ""]
    return " ".join(part for part in parts if part) or "in the snapshot"
