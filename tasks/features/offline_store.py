"""A Feast offline store that uses DuckDB's ASOF JOIN over Parquet.

In feature_store.yaml: `offline_store: {type: tasks.features.offline_store.AsofOfflineStore}`. Feast's own DuckDB store
joins every row of a view within its TTL, and then drops all but one; this store finds that row by sorting, so that
neither its time nor its memory depends on the TTL. The values are the same.
"""

from __future__ import annotations

import glob
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.features.point_in_time import Lookup
from tasks.features.retrieval import PointInTimeJob, PointInTimeRequest, QueryJob
from tasks.features.sql import microseconds

if TYPE_CHECKING:
    import pandas as pd
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` part of feature_store.yaml."""

    type: Literal["tasks.features.offline_store.AsofOfflineStore"] = "tasks.features.offline_store.AsofOfflineStore"
    threads: int | None = None  # of each query; None: all cores


class AsofOfflineStore(OfflineStore):
    """Reads FileSources of Parquet: one file, a folder or a glob, local or at any address that DuckDB reads."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Features as of each entity row's moment; `entity_df` is a pandas frame or a DuckDB query.

        Raises: ValueError without entity_df, for a source other than Parquet, and for names that collide.
        """
        from feast.on_demand_feature_view import OnDemandFeatureView

        if entity_df is None:
            raise ValueError("This store needs entity_df: features of a time range without entities are not supported.")
        lookups = [_lookup(config, view, feature_refs, full_feature_names) for view in feature_views]
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        request = PointInTimeRequest(
            entities=entity_df,
            lookups=lookups,
            known_only=filter_by_created_timestamp,
            feature_refs=feature_refs,
            on_demand=on_demand,
            full_feature_names=full_feature_names,
        )
        return PointInTimeJob(config, request)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key from start_date to end_date, both included."""
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = [*join_key_columns, *feature_name_columns, *times]
        rows = _rows_between(config, data_source, columns, timestamp_field, start=start_date, end=end_date)
        order = ", ".join(f"{microseconds(quote_identifier(time))} DESC NULLS LAST" for time in times)
        keys = ", ".join(map(quote_identifier, join_key_columns)) or "true"
        return QueryJob(config, f"{rows} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1")

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows from start_date to end_date, both included."""
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = [*join_key_columns, *feature_name_columns, *times]
        rows = _rows_between(config, data_source, columns, timestamp_field, start=start_date, end=end_date)
        return QueryJob(config, rows)


def _lookup(config: RepoConfig, view: FeatureView, feature_refs: list[str], full_feature_names: bool) -> Lookup:
    """Feast's definition of one view as a lookup. Field mappings contain the new names of a source's columns."""
    source = _parquet(view.batch_source)
    source_names = {new: old for old, new in source.field_mapping.items()}
    used_as, shown_as = view.projection.name_to_use(), view.projection.name_alias or view.name
    features = [ref.split(":")[1] for ref in feature_refs if ref.startswith(f"{used_as}:")]
    keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    created = source.created_timestamp_column
    return Lookup(
        paths=_paths(config, source),
        keys={column: source_names.get(key, key) for key, column in keys.items()},
        features={f"{shown_as}__{f}" if full_feature_names else f: source_names.get(f, f) for f in features},
        event=source_names.get(source.timestamp_field, source.timestamp_field),
        created=source_names.get(created, created) if created else None,
        ttl=view.ttl,
    )


def _parquet(source: DataSource | None) -> FileSource:
    if isinstance(source, FileSource) and isinstance(source.file_format, ParquetFormat | None):
        return source
    what = f"{type(source).__name__} {source.name!r}" if source else "nothing"
    raise ValueError(f"This store reads FileSources of Parquet, not {what}.")


def _paths(config: RepoConfig, source: FileSource) -> tuple[Path | str, ...]:
    path = FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=source.path).removeprefix("file://")
    if os.path.isdir(path):
        return (f"{glob.escape(path)}/**/*.parquet",)
    return (Path(path) if os.path.exists(path) else path,)


def _rows_between(
    config: RepoConfig,
    source: DataSource,
    columns: list[str],
    event: str,
    *,
    start: datetime | None,
    end: datetime | None,
) -> str:
    selected = ", ".join(map(quote_identifier, columns))
    moment = microseconds(quote_identifier(event))
    bounds = [f"{moment} {sign} {_epoch(at)}" for sign, at in ((">=", start), ("<=", end)) if at]
    rows = scan_parquet(*_paths(config, _parquet(source)), by_name=True)
    return f"SELECT {selected} FROM {rows} WHERE {' AND '.join(bounds) or 'true'}"


def _epoch(at: datetime) -> int:
    """Microseconds since 1970; Feast passes naive times as local times, and its own store reads them so."""
    return (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
