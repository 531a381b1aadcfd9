"""Feast's retrieval jobs over DuckDB: they run when their result is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.repo_config import RepoConfig

from tasks.core.duckdb import connect, quote_identifier
from tasks.core.files import atomic_path
from tasks.features.point_in_time import Lookup, look_up

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDatasetStorage, ValidationReference


class QueryJob(RetrievalJob):
    """A query that runs, in a DuckDB of its own, when its result is asked for."""

    def __init__(self, config: RepoConfig, sql: str) -> None:
        self._config, self._sql = config, sql

    def to_sql(self) -> str:
        return self._sql

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with connect(threads=_threads(self._config)) as connection:
            return connection.sql(self._sql).to_arrow_table().combine_chunks()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return None

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as one Parquet file, whole or not at all."""
        _write(self.to_arrow(timeout=timeout), _target(self._config, storage, allow_overwrite))


class PointInTimeJob(RetrievalJob):
    """Entity rows with their features, in the rows' order."""

    def __init__(
        self,
        config: RepoConfig,
        entities: pd.DataFrame | str,
        lookups: Sequence[Lookup],
        known_only: bool,
        feature_refs: list[str],
        on_demand: list[OnDemandFeatureView],
        full_feature_names: bool,
    ) -> None:
        self._config, self._entities, self._lookups, self._known_only = config, entities, lookups, known_only
        self._feature_refs, self._on_demand, self._full_feature_names = feature_refs, on_demand, full_feature_names

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        with connect(threads=_threads(self._config)) as connection:
            columns, moment = self._load_entities(connection)
            column = quote_identifier(moment)
            first, last = connection.sql(
                f"SELECT min({column}::TIMESTAMPTZ), max({column}::TIMESTAMPTZ) FROM asof_rows"
            ).fetchall()[0]
        return RetrievalMetadata(self._feature_refs, [c for c in columns if c != moment], first, last)

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """As to_arrow, but the columns of a pandas entity_df stay in pandas instead of going through Arrow and back."""
        if validation_reference or self._on_demand:
            return super().to_df(validation_reference, timeout)
        return self._to_df_internal(timeout)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        if isinstance(self._entities, str):
            return self._to_arrow_internal(timeout).to_pandas(split_blocks=True, self_destruct=True)
        import pandas as pd

        with connect(threads=_threads(self._config)) as connection:
            columns, moment = self._load_entities(connection)
            features = self._look_up(connection, columns, moment).to_pandas(split_blocks=True, self_destruct=True)
        frame = _with_times(self._entities, moment)
        frame.index = pd.RangeIndex(len(frame))
        return pd.concat([frame, features], axis=1)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        import pyarrow as pa

        with connect(threads=_threads(self._config)) as connection:
            columns, moment = self._load_entities(connection)
            features = self._look_up(connection, columns, moment)
            if isinstance(self._entities, str):
                table = connection.sql("FROM asof_rows").to_arrow_table()
            else:
                table = pa.Table.from_pandas(_with_times(self._entities, moment), preserve_index=False)
        for column in features.column_names:
            table = table.append_column(column, features[column])
        return table

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as one Parquet file, whole or not at all."""
        _write(self.to_arrow(timeout=timeout), _target(self._config, storage, allow_overwrite))

    def _load_entities(self, connection: duckdb.DuckDBPyConnection) -> tuple[list[str], str]:
        """Make the table asof_rows: a frame's keys and times, or a whole query. Returns all columns, and the time."""
        if isinstance(self._entities, str):
            import numpy as np

            connection.execute(f"CREATE TEMP TABLE asof_rows AS {self._entities.strip().rstrip(';')}")
            schema = {column[0]: column[1] for column in connection.execute("DESCRIBE asof_rows").fetchall()}
            dtypes = {c: np.dtype("M8[us]" if t.startswith("TIMESTAMP") else "O") for c, t in schema.items()}
            return list(schema), infer_event_timestamp_from_entity_df(dtypes)
        import pyarrow as pa

        moment = infer_event_timestamp_from_entity_df({str(c): t for c, t in self._entities.dtypes.items()})
        columns = [str(column) for column in self._entities.columns]
        keys = {key for lookup in self._lookups for key in lookup.keys}
        _check_columns(columns, self._lookups)
        needed = _with_times(self._entities[[c for c in columns if c in keys or c == moment]], moment)
        connection.register("asof_frame", pa.Table.from_pandas(needed, preserve_index=False))
        connection.execute("CREATE TEMP TABLE asof_rows AS FROM asof_frame")
        return columns, moment

    def _look_up(self, connection: duckdb.DuckDBPyConnection, columns: list[str], moment: str) -> pa.Table:
        _check_columns(columns, self._lookups)
        return look_up(connection, "asof_rows", moment, self._lookups, self._known_only)


def _with_times(frame: pd.DataFrame, moment: str) -> pd.DataFrame:
    """The frame, sharing its columns, with moments that are times also where they came as text or objects."""
    import pandas as pd

    frame = frame.copy(deep=False)
    if not pd.api.types.is_datetime64_any_dtype(frame[moment]):
        frame[moment] = pd.to_datetime(frame[moment], utc=True)
    return frame


def _check_columns(columns: list[str], lookups: Sequence[Lookup]) -> None:
    missing = sorted({key for lookup in lookups for key in lookup.keys if key not in columns})
    if missing:
        raise ValueError(f"The entity rows lack the join keys {', '.join(missing)}; they have: {', '.join(columns)}.")
    names = {*columns, *(feature for lookup in lookups for feature in lookup.features)}
    taken = sorted(name for name in names if name.lower() == "rowid" or name.lower().startswith("asof_"))
    if taken:
        raise ValueError(f"The names rowid and asof_... are this store's own; found: {', '.join(taken)}.")
    twice = sorted({feature for lookup in lookups for feature in lookup.features if feature in columns})
    if twice:
        raise ValueError(f"Features and entity rows share the names {', '.join(twice)}: ask for full_feature_names.")


def _threads(config: RepoConfig) -> int | None:
    return getattr(config.offline_store, "threads", None)


def _target(config: RepoConfig, storage: SavedDatasetStorage, allow_overwrite: bool) -> Path:
    source = storage.to_data_source()
    if not isinstance(source, FileSource):
        raise ValueError(f"This store persists to files, not to {type(source).__name__}.")
    target = Path(FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=source.path))
    if target.exists() and not allow_overwrite:
        raise SavedDatasetLocationAlreadyExists(location=str(target))
    return target


def _write(table: pa.Table, target: Path) -> None:
    import pyarrow.parquet

    with atomic_path(target) as temporary:
        pyarrow.parquet.write_table(table, temporary)
