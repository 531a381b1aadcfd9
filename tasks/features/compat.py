"""The private parts of Feast that its stores must override or call; tests/features/test_compat.py checks each."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.online_stores.helpers import compute_table_id, extract_text_and_num
from feast.infra.online_stores.sqlite import SqliteOnlineStore

if TYPE_CHECKING:
    import sqlite3

    import pandas as pd
    import pyarrow as pa
    from feast import FeatureView, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value


class ArrowRetrievalJob(RetrievalJob):
    """A retrieval job that implements `read`: Feast calls a job's result by private names."""

    @abstractmethod
    def read(self) -> pa.Table: ...

    def read_frame(self) -> pd.DataFrame:
        frame: pd.DataFrame = self.read().to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.read()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self.read_frame()


class ConcurrentSqliteOnlineStore(SqliteOnlineStore):
    """Feast's SQLite store, whose connection lets a service read while a run writes."""

    _versioned_read_supported = True  # Feast would import every store that it knows to find this out

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        new = self._conn is None
        connection: sqlite3.Connection = super()._get_conn(config)
        if new:
            connection.execute("PRAGMA busy_timeout = 30000")
            connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def connection(self, config: RepoConfig) -> sqlite3.Connection:
        """The store's one connection, opened on first use."""
        return self._get_conn(config)


def entity_key_bytes(config: RepoConfig, key: EntityKey) -> bytes:
    """A key as the online table stores it: Feast's own methods must find the row."""
    return serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)


def table_name(config: RepoConfig, view: FeatureView) -> str:
    """The name of a view's online table: Feast's `update` creates it."""
    return compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)


def text_value(value: Value) -> str | None:
    """A value as the online table's column `value_text` stores it."""
    text, _ = extract_text_and_num(value, False)
    return text
