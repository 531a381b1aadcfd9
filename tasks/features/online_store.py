"""Feast's SQLite online store, except that an older value never replaces a newer one.

In feature_store.yaml: `online_store: {type: tasks.features.online_store.NewestSqliteOnlineStore, path: ...}`. Feast's
own store keeps what was written last, so that a late back-fill or a backtest replaces today's values by yesterday's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import to_naive_utc

from tasks.core.duckdb import quote_identifier
from tasks.features.compat import ConcurrentSqliteOnlineStore, entity_key_bytes, table_name, text_value
from tasks.features.definitions import SQLITE

if TYPE_CHECKING:
    from feast import Entity, FeatureView, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

EPOCH = datetime(1970, 1, 1)
NEVER = -(2**63)  # before every moment
MAX_KEYS_PER_QUERY = 10_000  # SQLite accepts 32,766 parameters


class NewestSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """The `online_store` part of feature_store.yaml."""

    type: Literal["tasks.features.online_store.NewestSqliteOnlineStore"] = SQLITE  # type: ignore[assignment]


class NewestSqliteOnlineStore(ConcurrentSqliteOnlineStore):
    """Keeps the value with the latest event, then the latest creation, in whatever order values are written.

    Feast's table stores whole seconds; two more columns store microseconds. Vectors are not supported.
    """

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
        with self.connection(config) as connection:
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
        connection, name = self.connection(config), _table(config, table)
        requested = [entity_key_bytes(config, key) for key in entity_keys]
        values: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for start in range(0, len(requested), MAX_KEYS_PER_QUERY):
            keys = requested[start : start + MAX_KEYS_PER_QUERY]
            rows = connection.execute(
                f"SELECT entity_key, feature_name, value, event_us FROM {name} "
                f"WHERE entity_key IN ({', '.join('?' * len(keys))}) ORDER BY entity_key",
                keys,
            )
            for key, features in itertools.groupby(rows, key=lambda row: row[0]):
                rows_of_key = list(features)
                event = (EPOCH + timedelta(microseconds=rows_of_key[0][3])).replace(tzinfo=UTC)
                values[key] = (event, {name: Value.FromString(value) for _, name, value, _ in rows_of_key})
        return [values.get(key, (None, None)) for key in requested]

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
        connection = self.connection(config)
        for table in tables_to_keep:
            name = _table(config, table)
            existing = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            for column in ("event_us", "created_us"):
                if column not in existing:
                    connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} INTEGER")
        connection.commit()


def _cells(
    config: RepoConfig, data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]
) -> Iterator[tuple[Any, ...]]:
    for entity_key, values, event, created in data:
        key, event = entity_key_bytes(config, entity_key), to_naive_utc(event)
        created = to_naive_utc(created) if created else None
        times = (event, created, _micros(event), _micros(created) if created else NEVER)
        for feature, value in values.items():
            yield key, feature, value.SerializeToString(), text_value(value), *times


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _table(config: RepoConfig, table: FeatureView) -> str:
    return quote_identifier(table_name(config, table))  # SQLite quotes as DuckDB does
