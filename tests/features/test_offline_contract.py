"""What Feast may ask of an offline store besides values: kinds of input, sources, and the other calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tests.features.test_offline_store import ASOF, FEAST, START, answer, entity_rows, events, same, stores, view

TTL = timedelta(days=2)
FEATURES = ["by_user:a", "by_user:b"]
SOME_TIME = datetime(2013, 1, 8, tzinfo=UTC)


@pytest.fixture
def store_pair(tmp_path):
    """Both stores over one view with late creations, and entity rows."""
    rng = np.random.default_rng(9)
    known = events(rng, 300, ["user"], True, False, ["a", "b"]).dropna(subset="user")  # online, a key can't be empty
    return stores(tmp_path, view(tmp_path, "by_user", known, ["user"], TTL)), entity_rows(rng, 200, False)


def test_entity_rows_may_be_a_query(store_pair, tmp_path):
    """DuckDB SQL gives the same as a frame, in the query's order, without going through pandas."""
    both, rows = store_pair
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    query = f"SELECT * FROM '{tmp_path}/rows.parquet' ORDER BY shop, row;  "
    from_query = answer(both[ASOF], query, FEATURES)
    from_frame = answer(both[ASOF], rows.sort_values(["shop", "row"]), FEATURES)
    assert from_query["row"].tolist() == from_frame["row"].tolist()
    pd.testing.assert_frame_equal(from_query[["a", "b"]], from_frame[["a", "b"]])


def test_moments_may_be_text_and_the_callers_frame_stays(store_pair):
    """Text is read as UTC; neither the call nor changes to its result reach the frame that was given."""
    both, rows = store_pair
    texts = rows.assign(event_timestamp=rows["event_timestamp"].astype(str))
    before = texts.copy()
    found = answer(both[ASOF], texts, FEATURES)
    pd.testing.assert_frame_equal(found[["a", "b"]], answer(both[ASOF], rows, FEATURES)[["a", "b"]])
    found.loc[:, "shop"] = "changed"
    pd.testing.assert_frame_equal(texts, before)


@pytest.mark.parametrize("where", ["folder", "glob"])
def test_a_source_may_be_many_files_with_mapped_names(tmp_path, where):
    """A folder or a glob reads as one table; a field mapping renames features and times."""
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Float64, String
    from feast.value_type import ValueType

    rng = np.random.default_rng(4)
    frame = events(rng, 200, ["user"], True, False, ["a"])
    plain = stores(tmp_path, view(tmp_path, "by_user", frame, ["user"], TTL))
    (tmp_path / "parts").mkdir()
    for number in range(3):
        renamed = frame.iloc[number::3].rename(columns={"a": "raw", "event_timestamp": "at"})
        renamed.to_parquet(tmp_path / "parts" / f"{number}.parquet", coerce_timestamps="us")
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    source = FileSource(
        name="parts",
        path=str(tmp_path / "parts" / ("*.parquet" if where == "glob" else "")),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        field_mapping={"raw": "a", "at": "event_timestamp"},
    )
    schema = [Field(name="user", dtype=String), Field(name="a", dtype=Float64)]
    plain[ASOF].apply([user, FeatureView(name="parts", entities=[user], schema=schema, ttl=TTL, source=source)])
    rows = entity_rows(rng, 100, False)
    found = answer(plain[ASOF], rows, ["parts:a"], filter_by_created_timestamp=True)
    expected = answer(plain[ASOF], rows, ["by_user:a"], filter_by_created_timestamp=True)
    assert expected["a"].notna().any()
    pd.testing.assert_frame_equal(found, expected)


def test_an_entity_may_be_joined_under_other_names(store_pair):
    """The same view twice, for two users of one row, as Feast's own store answers it."""
    from feast import FeatureService

    both, rows = store_pair
    rows = rows.rename(columns={"user": "buyer"}).assign(seller=rows["user"].sample(frac=1, random_state=5).to_numpy())
    base = both[ASOF].get_feature_view("by_user")
    service = FeatureService(
        name="trade",
        features=[
            base.with_name("buyers").with_join_key_map({"user": "buyer"}),
            base.with_name("sellers").with_join_key_map({"user": "seller"}),
        ],
    )
    both[ASOF].apply([service])
    both[FEAST].refresh_registry()
    actual, expected = (
        store.get_historical_features(rows, store.get_feature_service("trade"), full_feature_names=True).to_df()
        for store in (both[ASOF], both[FEAST])
    )
    same(actual, expected)
    assert actual["sellers__a"].notna().any()


def test_views_without_entities_and_on_demand_views_work(store_pair, tmp_path):
    """One value for all rows, and a value computed from others at retrieval, as Feast's own store gives them."""
    from feast import Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    both, rows = store_pair
    for_all = view(tmp_path, "for_all", events(np.random.default_rng(3), 40, [], True, True, ["c"]), [], TTL)

    def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"a_doubled": inputs["a"] * 2})

    sources = [both[ASOF].get_feature_view("by_user")]
    on_demand = on_demand_feature_view(sources=sources, schema=[Field(name="a_doubled", dtype=Float64)])(doubled)
    both[ASOF].apply([*for_all, on_demand])
    both[FEAST].refresh_registry()
    actual, expected = (
        answer(both[kind], rows, ["by_user:a", "for_all:c", "doubled:a_doubled"]) for kind in (ASOF, FEAST)
    )
    same(actual, expected)
    assert (actual["a_doubled"].dropna() == actual["a"].dropna() * 2).all()
    assert actual["c"].notna().any()


def test_the_other_calls_answer_as_feasts_own_store(store_pair):
    """pull_latest and pull_all, with both bounds included; a tie goes to what was created last."""
    both, _ = store_pair
    source = both[ASOF].get_feature_view("by_user").batch_source
    first, last = pd.Timestamp(START, tz="UTC"), pd.Timestamp(START, tz="UTC") + pd.Timedelta(hours=120)
    arguments = {
        "data_source": source,
        "join_key_columns": ["user"],
        "feature_name_columns": ["a", "b"],
        "timestamp_field": "event_timestamp",
        "created_timestamp_column": "created",
        "start_date": first.to_pydatetime(),
        "end_date": last.to_pydatetime(),
    }
    for call in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        found = []
        for store in both.values():
            job = getattr(store._get_provider().offline_store, call)(config=store.config, **arguments)
            found.append(job.to_df().sort_values(["user", "event_timestamp", "created"], ignore_index=True))
        actual, expected = found
        pd.testing.assert_frame_equal(actual, expected[actual.columns], check_dtype=False)
        assert actual["event_timestamp"].max() == last.tz_localize(None)


def test_materialise_and_saved_datasets_work(store_pair, tmp_path):
    """Feast's own commands run on this store: materialise into an online store, and save what was retrieved."""
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    both, rows = store_pair
    store = both[ASOF]
    store.materialize(datetime(2012, 12, 31, tzinfo=UTC), SOME_TIME)
    online = store.get_online_features(["by_user:a"], [{"user": "user1"}]).to_dict()["a"]
    at = pd.DataFrame({"user": ["user1"], "event_timestamp": [SOME_TIME]})
    assert online == answer(store, at, ["by_user:a"])["a"].tolist()
    job = store.get_historical_features(rows, FEATURES)
    saved = store.create_saved_dataset(job, "saved", SavedDatasetFileStorage(str(tmp_path / "saved.parquet")))
    assert len(saved.to_df()) == len(rows)
    with pytest.raises(Exception, match=r"saved\.parquet"):
        job.persist(SavedDatasetFileStorage(str(tmp_path / "saved.parquet")))


def test_no_name_is_taken_by_the_store_itself(tmp_path):
    """Keys and features may be called what the store's own queries call their own columns."""
    rng, names = np.random.default_rng(8), ["i", "r", "t", "s", "event", "since"]
    source = events(rng, 200, ["user"], True, False, names).rename(columns={"user": "k"})
    both = stores(tmp_path, view(tmp_path, "e", source, ["k"], TTL))
    rows = entity_rows(rng, 100, False).rename(columns={"user": "k", "shop": "q"})
    features = [f"e:{name}" for name in names]
    same(*(answer(both[kind], rows, features, filter_by_created_timestamp=True) for kind in (ASOF, FEAST)))


def test_no_rows_and_rows_without_a_moment_work(store_pair):
    """Nothing in, nothing out, with the right columns; an empty moment finds nothing."""
    both, rows = store_pair
    empty = answer(both[ASOF], rows.head(0), FEATURES)
    assert list(empty.columns) == [*rows.columns, "a", "b"]
    assert len(empty) == 0
    lost = answer(both[ASOF], rows.assign(event_timestamp=pd.NaT), FEATURES)
    assert lost[["a", "b"]].isna().all(axis=None)
    assert len(lost) == len(rows)


def test_what_can_not_be_answered_is_refused(store_pair):
    """Missing join keys, names that clash, no entity rows."""
    both, rows = store_pair
    with pytest.raises(ValueError, match="lack the join keys user"):
        answer(both[ASOF], rows.drop(columns="user"), FEATURES)
    with pytest.raises(ValueError, match="share the names a"):
        answer(both[ASOF], rows.assign(a=1), FEATURES)
    with pytest.raises(ValueError, match="needs entity_df"):
        both[ASOF].get_historical_features(features=FEATURES, start_date=SOME_TIME, end_date=SOME_TIME + TTL)
