"""Builds the frame that a model is trained on or predicts: examples with their point-in-time features."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import CaseError, NoDataYet
from tasks.core.files import atomic_path, lock, write_text
from tasks.core.progress import mark_cached
from tasks.data.parquet import copy_to_parquet
from tasks.data.results import Snapshot, TimeWindow
from tasks.features.config import Features, FrameSpec
from tasks.features.definitions import make_repository
from tasks.features.results import Column, Frame
from tasks.features.schema import Tables, describe_tables
from tasks.features.tables import build_tables

if TYPE_CHECKING:
    from tasks.features.schema import Table


def build_frame(
    spec: FrameSpec, snapshot: Snapshot, state: Path, *, window: TimeWindow | None = None, known_only: bool = True
) -> Frame:
    """Join each example of the window with the features known at its event_timestamp; without a window, all examples.

    The file is named by a digest of its inputs, so that a second call only reads its summary. Numbers in it are
    doubles, whatever their type in the SQL. `known_only` leaves out examples whose target is empty.

    Raises: CaseError when the SQL fails or its columns don't fit; NoDataYet when no example is left; DataError when
    ids repeat.
    """
    features, bounds = spec.features, [moment.isoformat() for moment in (window.start, window.end)] if window else None
    key = cache_key(
        __name__, [features.digest, snapshot.digest, snapshot.case, spec.target, spec.slices, bounds, known_only]
    )
    path = state / "frames" / f"{key}.parquet"
    with lock(state / "features" / snapshot.case / ".lock", "The case's features", wait=True):
        if frame := _read_existing(path):
            mark_cached()
            return frame
        tables = describe_tables(features, snapshot, state)
        columns = feature_columns(spec, tables)
        build_tables(tables, snapshot)
        rows = _example_rows(spec, tables, window, known_only)
        if tables.views:
            _join(features, snapshot, tables, rows, path)
        else:
            with connect() as connection, atomic_path(path) as temporary:
                copy_to_parquet(connection, rows, temporary)
        with connect() as connection:
            count, first, last = connection.execute(
                f"SELECT count(*), min(event_timestamp), max(event_timestamp) FROM {scan_parquet(path)}"
            ).fetchall()[0]
            everything = connection.execute(f"SELECT count(*) FROM ({_example_rows(spec, tables, window, False)})")
            without_target = everything.fetchall()[0][0] - count
        if not count:
            path.unlink()
            raise NoDataYet(
                "No example is left.",
                where=f"{snapshot.case} as of {snapshot.as_of:%Y-%m-%d %H:%M}",
                found=f"0 of them {_describe(window)}{f' with a known {spec.target}' if known_only else ''}",
                todo="Use another window or a later as-of.",
            )
        frame = Frame(
            path=path,
            data_digest=snapshot.digest,
            definitions_digest=features.digest,
            rows=count,
            columns=columns,
            start=first,
            end=last,
            without_target=without_target,
        )
        write_text(path.with_suffix(".json"), frame.model_dump_json(indent=1))
    return frame


def _read_existing(path: Path) -> Frame | None:
    with contextlib.suppress(OSError, ValueError):
        frame = Frame.model_validate_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        return frame.model_copy(update={"path": path}) if path.is_file() else None
    return None


def feature_columns(spec: FrameSpec, tables: Tables) -> tuple[Column, ...]:
    """The model's features, in order: the request's columns, then each view's.

    Raises: CaseError when two of them share a name, or the target or a slice is missing.
    """
    examples, target = tables.examples, spec.target
    columns = [_column(examples, name, "request", ()) for name in spec.features.request]
    columns += [_column(view, name, view.name, view.keys) for view in tables.views for name in view.features]
    origins: dict[str, list[str]] = {}
    for column in columns:
        origins.setdefault(column.name, []).append(column.origin)
    for column in columns:
        if column.origin != "request" and column.name in examples.columns:
            origins[column.name].append("examples")
    duplicates = {name: places for name, places in origins.items() if len(places) > 1}
    if duplicates:
        raise CaseError(
            "Features share a name.",
            where="features",
            found="; ".join(f"{name} in {' and '.join(places)}" for name, places in duplicates.items()),
            allowed="each name once in examples and views",
            todo="Rename it in one query. A slice may name a view's feature: it need not be in examples, too.",
        )
    if examples.columns.get(target) not in ("number", "text") or target in origins:
        raise CaseError(
            f"The target {target} is " + ("a feature, too." if target in origins else "no value of the examples."),
            where="target.column",
            found=f"columns of examples: {', '.join(f'{n} ({k})' for n, k in examples.columns.items())}",
            allowed="a number, boolean or text that is no feature",
            todo="Select it in the SQL of examples (empty while unknown), and not in request and views.",
        )
    missing = [name for name in spec.slices if name not in examples.columns and name not in origins]
    if missing:
        raise CaseError(
            f"Slices name columns that do not exist: {', '.join(missing)}.",
            where="evaluate.slices",
            found=", ".join(missing),
            allowed=", ".join(dict.fromkeys([*examples.columns, *origins])),
            todo="Add the column to the SQL of examples, or correct the slice.",
        )
    return tuple(columns)


def _column(table: Table, name: str, origin: str, keys: tuple[str, ...]) -> Column:
    return Column(name=name, kind="text" if table.columns[name] == "text" else "number", origin=origin, entities=keys)


def _example_rows(spec: FrameSpec, tables: Tables, window: TimeWindow | None, known_only: bool) -> str:
    """The query for the examples; their file is already ordered by event_timestamp and example_id."""
    request = spec.features.request
    names = dict.fromkeys(["example_id", "event_timestamp", *tables.join_keys, *spec.slices, *request, spec.target])
    selected = ", ".join(quote_identifier(name) for name in names if name in tables.examples.columns)
    bounds = [
        f"event_timestamp {sign} {quote_literal(at.isoformat())}::TIMESTAMPTZ"
        for sign, at in ([(">=", window.start), ("<", window.end)] if window else [])
    ]
    if known_only:
        bounds.append(f"{quote_identifier(spec.target)} IS NOT NULL")
    examples = scan_parquet(tables.path(tables.examples))
    return f"SELECT {selected} FROM {examples} WHERE {' AND '.join(bounds) or 'true'}"


def _join(features: Features, snapshot: Snapshot, tables: Tables, rows: str, path: Path) -> None:
    """Join with Feast: the rows are a query, and our offline store writes the result straight to Parquet."""
    store = make_repository(tables.folder, f"{snapshot.case}_{features.digest[:12]}", snapshot.case, tables)
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    # Without the filter, a value would be used from its event on, though it was published later.
    job = store.get_historical_features(
        entity_df=rows, features=store.get_feature_service(snapshot.case), filter_by_created_timestamp=True
    )
    job.persist(SavedDatasetFileStorage(path=str(path)), allow_overwrite=True)


def _describe(window: TimeWindow | None) -> str:
    return f"from {window.start:%Y-%m-%d %H:%M} before {window.end:%Y-%m-%d %H:%M}" if window else "in the snapshot"
