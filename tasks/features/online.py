"""The newest values of each view for a service: written as of a snapshot, read with their TTL."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import code_digest
from tasks.core.config import digest_of
from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import CaseError, InputError, Unavailable
from tasks.core.files import write_text
from tasks.core.progress import mark_cached
from tasks.data.results import Snapshot
from tasks.features.compat import entity_key_bytes, table_name
from tasks.features.config import Features
from tasks.features.definitions import SQLITE, make_repository, open_repository
from tasks.features.feast_import import import_feast
from tasks.features.schema import Table, describe_tables
from tasks.features.tables import build_tables

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureView, Field

Value = float | str | None


def materialise(features: Features, snapshot: Snapshot, state: Path, online_store: str = "") -> Path:
    """Write each key's newest values known at the snapshot's as-of to the online store; returns its feature repository.

    The folder is the same for all snapshots of one definition, so that a service needs no notice of a new one. Newer
    values in the store stay. `online_store` is redis://HOST:PORT, or empty for SQLite in that folder.

    Raises: CaseError when the case has no views; Unavailable when Redis does not answer.
    """
    if not features.views:
        raise CaseError(
            "A case without views needs no online store.",
            where="features.views",
            todo="Skip this step: each request carries all of its features.",
        )
    tables = describe_tables(features, snapshot, state)
    key = digest_of([features.digest, [table.columns for table in tables.views]])[:12]
    folder = state / "features" / snapshot.case / f"online-{key}"
    done = folder / "materialised.json"
    written = json.dumps({"data": snapshot.digest, "as_of": snapshot.as_of.isoformat(), "code": code_digest(__name__)})
    if not online_store and (folder / "online.db").exists() and done.exists() and done.read_text() == written:
        mark_cached()
        return folder
    if not online_store and not (folder / "online.db").exists():
        (folder / "registry.db").unlink(missing_ok=True)  # defining the views again creates the store's tables, too
    build_tables(tables, snapshot)
    import_feast()
    from feast.infra.provider import get_provider

    with _connection_errors(online_store):
        store = make_repository(folder, f"{snapshot.case}_{key}", snapshot.case, tables, _online(online_store))
        provider = get_provider(store.config)
        for table in tables.views:
            latest = _latest(tables.path(table), table, snapshot.as_of)
            if len(latest):  # not store.write_to_online_store: it leaves out a frame whose values are all null
                provider.ingest_df(store.get_feature_view(table.name), latest)
    write_text(done, written)
    return folder


class OnlineFeatures:
    """Reads a materialised repository; create one per process: several threads may use it."""

    def __init__(self, repository: Path, online_store: str = "") -> None:
        self._store = open_repository(repository, _online(online_store))
        self._where = online_store
        self._service = self._store.list_feature_services()[0]
        self._views = {view.name: view for view in self._store.list_feature_views()}
        self.keys = {key: column.dtype for view in self._views.values() for key, column in _keys(view)}

    def lookup(self, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Value]]:
        """The features of all views for each row of join keys; None where the store has no value valid at `now`.

        Values older than their view's TTL, which Feast's online stores do not check, and values from after `now` are
        not valid.
        """
        if not rows:
            return []
        columns = {key: [row.get(key) for row in rows] for key in self.keys}
        # Feast accepts no empty key: a placeholder replaces it, and its features are dropped below.
        placeholders = {key: _placeholder(dtype) for key, dtype in self.keys.items()}
        filled = {k: [placeholders[k] if value is None else value for value in values] for k, values in columns.items()}
        with _connection_errors(self._where):
            response = self._store.get_online_features(features=self._service, entity_rows=filled)
        values = response.to_dict()
        moment = _micros(now)
        features: list[dict[str, Value]] = [{} for _ in rows]
        moments = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
        for projection in self._service.feature_view_projections:
            view = self._views[projection.name]
            ttl = view.ttl // timedelta(microseconds=1) if view.ttl else None
            names = [feature.name for feature in projection.features]
            for number, event in enumerate(moments[names[0]].event_timestamps):  # those of a view are written together
                age = moment - event.ToMicroseconds()
                valid = age >= 0 and (ttl is None or age <= ttl)
                valid = valid and all(columns[key][number] is not None for key, _ in _keys(view))
                features[number].update({name: values[name][number] if valid else None for name in names})
        return features


def find_entity(repository: Path, key: Mapping[str, str], *, delete: bool) -> int:
    """How many values an SQLite online store has under a key; `delete` removes them."""
    import sqlite3

    database = repository / "online.db"
    if not database.is_file():
        return 0
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    store, found = open_repository(repository), 0
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for view in store.list_feature_views():
            columns = dict(_keys(view))
            if set(columns) != set(key):
                continue
            names = sorted(columns)
            kinds = [columns[name].dtype for name in names]
            values = [
                python_values_to_proto_values([_typed(key[name], kind)], kind.to_value_type())[0]
                for name, kind in zip(names, kinds, strict=True)
            ]
            text = entity_key_bytes(store.config, EntityKey(join_keys=names, entity_values=values))
            table = quote_identifier(table_name(store.config, view))
            found += connection.execute(f"SELECT count(*) FROM {table} WHERE entity_key = ?", [text]).fetchone()[0]
            if delete:
                connection.execute(f"DELETE FROM {table} WHERE entity_key = ?", [text])
    return found


def _typed(text: str, dtype: Any) -> str | int:
    """A key as its view stores it; one that is no whole number is in no column of those."""
    from feast.types import String

    if dtype == String:
        return text
    try:
        return int(text)
    except ValueError:
        return -(2**63)


def _keys(view: FeatureView) -> list[tuple[str, Field]]:
    return [(column.name, column) for column in view.entity_columns]


def _placeholder(dtype: Any) -> str | int:
    from feast.types import String

    return "" if dtype == String else 0


def _micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _latest(path: Path, table: Table, as_of: datetime) -> pd.DataFrame:
    """Each key's newest row whose event and creation are not after `as_of`."""
    times = [column for column in ("event_timestamp", "created_timestamp") if column in table.columns]
    known = " AND ".join(f"{column} <= {quote_literal(as_of.isoformat())}::TIMESTAMPTZ" for column in times)
    keys = ", ".join(map(quote_identifier, table.keys))
    newest = ", ".join(f"{column} DESC NULLS LAST" for column in times)
    with connect() as connection:
        frame: pd.DataFrame = connection.sql(
            f"FROM {scan_parquet(path)} WHERE {known} "
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}) = 1"
        ).df()
    return frame


def _online(url: str) -> dict[str, Any]:
    """Feast's configuration of the online store at a URL."""
    if not url:
        return {"type": SQLITE, "path": "online.db"}  # in the repository
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise InputError(
            "The address of the online store is invalid.",
            where="setting online_store",
            found=f"{parts.scheme}://...",
            allowed="redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT/DB, or empty for SQLite",
            todo="Correct DRIFTLINE_ONLINE_STORE.",
        )
    options = {"db": parts.path.strip("/"), "username": parts.username, "password": parts.password}
    options["ssl"] = "true" if parts.scheme == "rediss" else ""
    suffix = "".join(f",{key}={urllib.parse.unquote(value)}" for key, value in options.items() if value)
    return {"type": "redis", "connection_string": f"{parts.hostname}:{parts.port or 6379}{suffix}"}


@contextlib.contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    """Turn a Redis client's errors into Unavailable; SQLite needs no connection."""
    if not url:
        yield
        return
    import redis

    try:
        yield
    except redis.RedisError as error:
        parts = urllib.parse.urlsplit(url)
        raise Unavailable(
            "The online store does not answer.",
            where=f"{parts.hostname}:{parts.port or 6379}",
            found=str(error),
            todo="Start it, or correct DRIFTLINE_ONLINE_STORE; empty: SQLite.",
        ) from error
