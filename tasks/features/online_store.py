"""Feast's SQLite online store, except that an older value never replaces a newer one.

In feature_store.yaml: `online_store: {type: tasks.features.online_store.NewestSqliteOnlineStore, path: ...}`. Feast's
own takes whatever was written last, so that a late back-fill or a replay puts yesterday's values before today's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id, extract_text_and_num
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import to_naive_utc

from tasks.core.duckdb import quote_identifier
from tasks.features.definitions import SQLITE

if TYPE_CHECKING:
    import sqlite3

    from feast import Entity, FeatureView, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

EPOCH = datetime(1970, 1, 1)
NEVER = -(2**63)  # before every moment
KEYS_A_QUERY = 10_000  # SQLite takes 32,766 parameters


class NewestSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """The `online_store` part of feature_store.yaml."""

    type: Literal["tasks.features.online_store.NewestSqliteOnlineStore"] = SQLITE  # type: ignore[assignment]


class NewestSqliteOnlineStore(SqliteOnlineStore):
    """Of two values the one with the later event, then the later creation, stays, in whatever order they come.

    Feast's table keeps whole seconds; two more columns hold microseconds. Vectors are not supported.
    """

    _versioned_read_supported = True  # finding out imports every store that Feast knows

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write all rows in one transaction."""
        name = _table(config, table)
        newer = "(excluded.event_us, excluded.created_us) >= (event_us, created_us)"
        columns = ("value", "value_text", "event_ts", "created_ts", "event_us", "created_us")
        replaced = ", ".join(f"{column} = excluded.{column}" for column in columns)
        with self._get_conn(config) as connection:
            connection.executemany(
                f"INSERT INTO {name} (entity_key, feature_name, {', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT (entity_key, feature_name) DO UPDATE SET {replaced} "
                f"WHERE event_us IS NULL OR {newer}",
                _cells(config, data),
            )
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The values of each key with the moment of its event, or (None, None)."""
        connection, name = self._get_conn(config), _table(config, table)
        wanted = [_key(config, key) for key in entity_keys]
        found: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for start in range(0, len(wanted), KEYS_A_QUERY):
            keys = wanted[start : start + KEYS_A_QUERY]
            rows = connection.execute(
                f"SELECT entity_key, feature_name, value, event_us FROM {name} "
                f"WHERE entity_key IN ({', '.join('?' * len(keys))}) ORDER BY entity_key",
                keys,
            )
            for key, features in itertools.groupby(rows, key=lambda row: row[0]):
                rows_of_key = list(features)
                event = (EPOCH + timedelta(microseconds=rows_of_key[0][3])).replace(tzinfo=UTC)
                found[key] = (event, {name: Value.FromString(value) for _, name, value, _ in rows_of_key})
        return [found.get(key, (None, None)) for key in wanted]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        super().update(config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial)
        connection = self._get_conn(config)
        for table in tables_to_keep:
            name = _table(config, table)
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            for column in ("event_us", "created_us"):
                if column not in there:
                    connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} INTEGER")
        connection.commit()

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            connection = super()._get_conn(config)
            connection.execute("PRAGMA busy_timeout = 30000")
            connection.execute("PRAGMA journal_mode = WAL")  # a service reads while a run writes
        return super()._get_conn(config)


def _cells(
    config: RepoConfig, data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]
) -> Iterator[tuple[Any, ...]]:
    for entity_key, values, event, created in data:
        key, event = _key(config, entity_key), to_naive_utc(event)
        created = to_naive_utc(created) if created else None
        times = (event, created, _micros(event), _micros(created) if created else NEVER)
        for feature, value in values.items():
            text, _ = extract_text_and_num(value, False)
            yield key, feature, value.SerializeToString(), text, *times


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    return serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)


def _table(config: RepoConfig, table: FeatureView) -> str:
    name = compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
    return quote_identifier(name)  # SQLite's quoting, too
