"""A case's features as Feast objects: entities, views and a service, in a feature repository of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tasks.core.files import atomic_path, lock, write_text
from tasks.features.feast_import import import_feast
from tasks.features.schema import Table, Tables

if TYPE_CHECKING:
    from feast import Entity, FeatureService, FeatureStore, FeatureView
    from feast.types import PrimitiveFeastType

OFFLINE = "tasks.features.offline_store.AsofOfflineStore"
SQLITE: Final = "tasks.features.online_store.NewestSqliteOnlineStore"
YAML = "feature_store.yaml"


def make_repository(
    folder: Path, project: str, case: str, tables: Tables, online: dict[str, Any] | None = None
) -> FeatureStore:
    """Write feature_store.yaml and the registry unless they exist, and open them; `feast -c FOLDER ui` shows them.

    The folder is named by a digest of the definitions, so an existing repository is up to date.
    """
    with lock(folder / ".lock", "The feature repository", wait=True):
        if not (folder / "registry.db").exists():
            _write(folder, project, case, tables, online)
    return open_repository(folder, online)


def open_repository(folder: Path, online: dict[str, Any] | None = None) -> FeatureStore:
    """The FeatureStore of a repository; `online` is its online store's configuration, with secrets."""
    return _open(folder, folder / "registry.db", online)


def _write(folder: Path, project: str, case: str, tables: Tables, online: dict[str, Any] | None) -> None:
    import yaml

    # A connection string may contain a password, and files contain none.
    without_secrets = {key: value for key, value in online.items() if key != "connection_string"} if online else None
    content = {
        "project": re.sub(r"\W", "_", project),
        "provider": "local",
        "registry": {"path": "registry.db", "cache_ttl_seconds": 0},  # 0: read once
        "offline_store": {"type": OFFLINE},
        "online_store": without_secrets,
        "entity_key_serialization_version": 3,
    }
    write_text(folder / YAML, "# Written by Driftline.\n" + yaml.safe_dump(content, sort_keys=False))
    entities, views, service = define(case, tables)
    with atomic_path(folder / "registry.db") as temporary:
        _open(folder, temporary, online).apply([*entities, *views, service])


def _open(folder: Path, registry: Path, online: dict[str, Any] | None) -> FeatureStore:
    import yaml

    import_feast()
    from feast import FeatureStore, RepoConfig

    content = yaml.safe_load((folder / YAML).read_text(encoding="utf-8"))
    content["registry"]["path"] = str(registry)
    config = RepoConfig(**content | ({"online_store": online} if online else {}))
    config.repo_path = folder
    return FeatureStore(config=config)


def define(case: str, tables: Tables) -> tuple[list[Entity], list[FeatureView], FeatureService]:
    """The Feast objects of a case; its service has the case's name and the features of all views."""
    import_feast()
    from feast import Entity, FeatureService, Field, FileSource
    from feast import FeatureView as View
    from feast.value_type import ValueType

    values = {"text": ValueType.STRING, "number": ValueType.INT64}
    entities = {
        key: Entity(name=key, join_keys=[key], value_type=values[tables.examples.columns[key]])
        for key in tables.join_keys
    }
    views = [
        View(
            name=table.name,
            entities=[entities[key] for key in table.keys],
            ttl=table.ttl,
            schema=[Field(name=column, dtype=_type(table, column)) for column in (*table.keys, *table.features)],
            source=FileSource(
                name=f"{table.name}_table",
                path=str(tables.path(table)),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp" if "created_timestamp" in table.columns else "",
            ),
        )
        for table in tables.views
    ]
    return list(entities.values()), views, FeatureService(name=case, features=list(views))


def _type(table: Table, column: str) -> PrimitiveFeastType:
    from feast.types import Float64, Int64, String

    return String if table.columns[column] == "text" else Int64 if column in table.keys else Float64
