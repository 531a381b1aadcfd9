"""Feast's retrieval jobs over DuckDB: they run when their result is requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.repo_config import RepoConfig

from tasks.core.duckdb import connect, quote_identifier
from tasks.core.files import atomic_path
from tasks.features.compat import ArrowRetrievalJob
from tasks.features.point_in_time import Lookup, look_up

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDatasetStorage, ValidationReference


class _FileJob(ArrowRetrievalJob):
    def __init__(self, config: RepoConfig) -> None:
        self._config = config

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as one Parquet file, atomically."""
        _write(self.to_arrow(timeout=timeout), _target(self._config, storage, allow_overwrite))


class QueryJob(_FileJob):
    """A query that runs, in a DuckDB of its own, when its result is requested."""

    def __init__(self, config: RepoConfig, sql: str) -> None:
        super().__init__(config)
        self._sql = sql

    def to_sql(self) -> str:
        return self._sql

    def read(self) -> pa.Table:
        with connect(threads=_threads(self._config)) as connection:
            return connection.sql(self._sql).to_arrow_table().combine_chunks()

    @property
    def full_feature_names(self) -> bool:
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return None


@dataclass(frozen=True)
class PointInTimeRequest:
    """The arguments of one call of `get_historical_features`."""

    entities: pd.DataFrame | str  # a frame, or a DuckDB query
    lookups: Sequence[Lookup]
    known_only: bool  # a value is used only from its creation on
    feature_refs: list[str]
    on_demand: list[OnDemandFeatureView]
    full_feature_names: bool


class PointInTimeJob(_FileJob):
    """Entity rows with their features, in the rows' order."""

    def __init__(self, config: RepoConfig, request: PointInTimeRequest) -> None:
        super().__init__(config)
        self._request, self._entities, self._lookups = request, request.entities, request.lookups

    @property
    def full_feature_names(self) -> bool:
        return self._request.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._request.on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        with connect(threads=_threads(self._config)) as connection:
            columns, moment = self._load_entities(connection)
            column = quote_identifier(moment)
            first, last = connection.sql(
                f"SELECT min({column}::TIMESTAMPTZ), max({column}::TIMESTAMPTZ) FROM asof_rows"
            ).fetchall()[0]
        return RetrievalMetadata(self._request.feature_refs, [c for c in columns if c != moment], first, last)

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """As to_arrow, but the columns of a pandas entity_df stay in pandas instead of a round trip through Arrow."""
        if validation_reference or self._request.on_demand:
            return super().to_df(validation_reference, timeout)
        return self.read_frame()

    def read_frame(self) -> pd.DataFrame:
        if isinstance(self._entities, str):
            table: pd.DataFrame = self.read().to_pandas(split_blocks=True, self_destruct=True)
            return table
        import pandas as pd

        with connect(threads=_threads(self._config)) as connection:
            columns, moment = self._load_entities(connection)
            features = self._look_up(connection, columns, moment).to_pandas(split_blocks=True, self_destruct=True)
        frame = _with_times(self._entities, moment)
        frame.index = pd.RangeIndex(len(frame))
        joined: pd.DataFrame = pd.concat([frame, features], axis=1)
        return joined

    def read(self) -> pa.Table:
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

    def _load_entities(self, connection: duckdb.DuckDBPyConnection) -> tuple[list[str], str]:
        """Create the table asof_rows: a frame's keys and times, or a query. Returns all columns and the time column."""
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
        return look_up(connection, "asof_rows", moment, self._lookups, self._request.known_only)


def _with_times(frame: pd.DataFrame, moment: str) -> pd.DataFrame:
    """The frame, sharing its columns, with times parsed where they are text or objects."""
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
    reserved = sorted(name for name in names if name.lower() == "rowid" or name.lower().startswith("asof_"))
    if reserved:
        raise ValueError(f"The names rowid and asof_... are reserved by this store; found: {', '.join(reserved)}.")
    shared = sorted({feature for lookup in lookups for feature in lookup.features if feature in columns})
    if shared:
        raise ValueError(f"Features and entity rows share the names {', '.join(shared)}: set full_feature_names.")


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
