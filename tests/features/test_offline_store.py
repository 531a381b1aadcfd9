"""Our offline store returns what Feast's own DuckDB store returns, on random data with awkward cases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ASOF, FEAST = "tasks.features.offline_store.AsofOfflineStore", "duckdb"
START = pd.Timestamp("2013-01-01")


def stores(folder: Path, objects: list) -> dict[str, Any]:
    """A FeatureStore with each of the two offline stores, over one registry."""
    from feast import FeatureStore, RepoConfig

    opened = {}
    for kind in (ASOF, FEAST):
        config = RepoConfig(
            project="parity",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": kind},
            entity_key_serialization_version=3,
        )
        config.repo_path = folder
        opened[kind] = FeatureStore(config=config)
    opened[ASOF].apply(objects)
    opened[FEAST].refresh_registry()
    return opened


def view(folder: Path, name: str, frame: pd.DataFrame, keys: list[str], ttl: timedelta, **source):
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Float64, String
    from feast.value_type import ValueType

    types = {"user": (ValueType.STRING, String), "shop": (ValueType.STRING, String), "k": (ValueType.STRING, String)}
    frame.to_parquet(folder / f"{name}.parquet", coerce_timestamps="us")
    other_columns = {"event_timestamp", "created", *keys, *source.get("field_mapping", {})}
    features = [c for c in frame.columns if c not in other_columns] + list(source.get("field_mapping", {}).values())
    feature_view = FeatureView(
        name=name,
        entities=[Entity(name=key, join_keys=[key], value_type=types[key][0]) for key in keys],
        schema=[Field(name=key, dtype=types[key][1]) for key in keys]
        + [Field(name=f, dtype=Float64) for f in features],
        ttl=ttl,
        source=FileSource(
            name=f"{name}_source",
            path=str(folder / f"{name}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created" if "created" in frame else None,
            **source,
        ),
    )
    return [*[Entity(name=key, join_keys=[key], value_type=types[key][0]) for key in keys], feature_view]


def events(rng, rows: int, keys: list[str], created: bool, aware: bool, features: list[str]) -> pd.DataFrame:
    """Rows on a coarse grid of times, so that ties are common; unique by keys, event and creation."""
    frame = pd.DataFrame({key: rng.choice([f"{key}{i}" for i in range(5)] + [None], rows) for key in keys})
    frame["event_timestamp"] = START + pd.to_timedelta(rng.integers(0, 60, rows) * 6, unit="h")
    if created:
        frame["created"] = frame["event_timestamp"] + pd.to_timedelta(
            rng.choice([-6, 0, 0, 6, 48, 240], rows), unit="h"
        )
        frame["created"] += pd.to_timedelta(rng.permutation(rows), unit="s")  # no two tie in everything
        frame.loc[rng.random(rows) < 0.05, "created"] = pd.NaT
    unique = [*keys, "event_timestamp", *(["created"] if created else [])]
    frame = frame.drop_duplicates(unique).sample(frac=1, random_state=1).reset_index(drop=True)
    if aware:
        times = ["event_timestamp", *(["created"] if created else [])]
        frame[times] = frame[times].apply(lambda column: column.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"))
    for feature in features:
        frame[feature] = rng.random(len(frame)).round(6)
        frame.loc[rng.random(len(frame)) < 0.1, feature] = np.nan
    return frame


def entity_rows(rng, rows: int, aware: bool) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "row": np.arange(rows),
            "user": rng.choice([*(f"user{i}" for i in range(6)), None], rows),
            "shop": rng.choice([f"shop{i}" for i in range(6)], rows),
            "event_timestamp": START + pd.to_timedelta(rng.integers(-10, 70, rows) * 6, unit="h"),
        }
    )
    frame = pd.concat([frame, frame.sample(rows // 5, random_state=2)])  # the same row twice
    if aware:
        frame["event_timestamp"] = frame["event_timestamp"].dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    return frame.sample(frac=1, random_state=3)


def answer(store, rows: pd.DataFrame, features: list[str], **options) -> pd.DataFrame:
    return store.get_historical_features(entity_df=rows, features=features, **options).to_df()


def same(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Feast's own store loses the order of rows, so both are put into one."""
    assert list(actual.columns) == list(expected.columns)
    assert len(actual) == len(expected)
    order = list(actual.columns)
    for frame in (actual, expected):
        frame["event_timestamp"] = frame["event_timestamp"].dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    a, b = (frame.sort_values(order, ignore_index=True) for frame in (actual, expected))
    pd.testing.assert_frame_equal(a, b, check_dtype=False)


@pytest.mark.parametrize("seed", range(6))
def test_values_equal_those_of_feasts_own_store(tmp_path, seed):
    """For any TTL, tie, null, duplicate, late creation and time zone no value differs, with the filter and without."""
    rng = np.random.default_rng(seed)
    aware, ttl = bool(seed % 2), [timedelta(0), timedelta(hours=6), timedelta(days=3)][seed % 3]
    objects = [
        *view(tmp_path, "by_user", events(rng, 200, ["user"], True, aware, ["a", "b"]), ["user"], ttl),
        *view(tmp_path, "by_shop", events(rng, 150, ["shop"], False, not aware, ["c"]), ["shop"], timedelta(days=2)),
        *view(tmp_path, "by_both", events(rng, 600, ["user", "shop"], True, aware, ["d"]), ["user", "shop"], ttl),
    ]
    both = stores(tmp_path, objects)
    rows = entity_rows(rng, 300, aware)
    features = ["by_user:a", "by_user:b", "by_shop:c", "by_both:d"]
    for options in ({}, {"filter_by_created_timestamp": True}, {"full_feature_names": True}):
        actual, expected = (answer(both[kind], rows, features, **options) for kind in (ASOF, FEAST))
        assert actual["row"].tolist() == rows["row"].tolist()
        same(actual, expected)
    assert actual.iloc[:, -4:].notna().any().all()
