"""Our offline store against Feast's own DuckDB store and against bare ASOF SQL.

    python -m benchmarks.features [--quick] [--json FILE]

Three views shaped like the flights' (16 carriers by day, 315 routes by day, 3 airports by hour, over a year), made with
a fixed seed. Each measurement has a process of its own; its imports and a first small retrieval are not counted. All
give a pandas frame; every value is compared.
"""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.table import Report, arguments, in_own_process, median, peak_memory, timed

if TYPE_CHECKING:
    import pandas as pd

TTLS = {"long": (400, 72), "tight": (35, 6)}  # days of the daily views, hours of the hourly one
KEYS = {"carrier_day": ["carrier"], "route_day": ["origin", "dest"], "origin_state": ["origin"]}
FEATURES = {
    "carrier_day": ["carrier_late", "carrier_delay"],
    "route_day": ["route_late", "route_delay"],
    "origin_state": ["origin_late", "origin_delay", "origin_due"],
}
START = "2013-01-01"
STORES = {"ours": "tasks.features.offline_store.AsofOfflineStore", "feast": "duckdb"}
REQUIRED = {
    "feast_over_ours_300k_long": ">= 50",
    "feast_over_ours_300k_tight": ">= 10",
    "memory_ours_over_feast_300k_long": "< 0.333",
    "ours_over_asof_300k": "<= 1.5",
    "values_that_differ": "0",
}
# GB of free memory that Feast's store wants; with less it is left out, so that nothing else on the machine is killed.
ROOM_FOR = {("feast", "300k", "long"): 15, ("feast", "1000k", "tight"): 10, ("feast", "1000k", "long"): 26}


def main() -> None:
    options = arguments("Our offline store against Feast's own and bare ASOF SQL.")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    sizes = [10_000] if options.quick else [100_000, 300_000, 1_000_000]
    kinds = ["long"] if options.quick else [*TTLS]
    report = Report(
        "Point-in-time features over three views",
        ["entity rows", "TTLs", "what", "seconds (median)", "runs", "peak MB", "values that differ from ours"],
        REQUIRED,
    )
    different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_views(folder)
        for size in sizes:
            for ttls in kinds:
                different += compare(report, folder, size, ttls, options.quick)
    report.figure("values_that_differ", different)
    report.finish(["feast", "duckdb", "pandas", "pyarrow", "ibis-framework"], options.json)


def compare(report: Report, folder: Path, size: int, ttls: str, quick: bool) -> int:
    """Measure all at one size and one kind of TTL; returns how many values differ."""
    label, different = f"{size // 1000}k", 0
    found: dict[str, dict[str, Any]] = {}
    for what in ("ours", "asof", "feast"):
        needed = ROOM_FOR.get((what, label, ttls), 0)
        if needed > free_memory():
            report.row(size, ttls, what, f"not run: wants {needed} GB of free memory", "", "", "")
            continue
        runs = (1 if ttls == "long" or quick else 3) if what == "feast" else 5
        found[what] = in_own_process(
            "benchmarks.features", what=what, folder=str(folder), size=size, ttls=ttls, runs=runs
        )
        found[what]["differ"] = differing(folder, what)
        different += found[what]["differ"]
        seconds, peak = median(found[what]["seconds"]), found[what]["peak"]
        report.row(size, ttls, what, seconds, runs, peak, found[what]["differ"])
    driftline = found["ours"]
    if "feast" in found:
        ratio = median(found["feast"]["seconds"]) / median(driftline["seconds"])
        report.figure(f"feast_over_ours_{label}_{ttls}", ratio)
        report.figure(f"memory_ours_over_feast_{label}_{ttls}", driftline["peak"] / found["feast"]["peak"])
    if ttls == "long":  # for this pair the TTLs make no difference
        ratio = median(driftline["seconds"]) / median(found["asof"]["seconds"])
        report.figure(f"ours_over_asof_{label}", ratio)
    return different


def measure(what: str, folder: str, size: int, ttls: str, runs: int) -> dict[str, Any]:
    """One measurement: seconds of each run and the process's peak memory; the result is left in the folder."""
    entities = entity_rows(size)
    retrieve = bare(Path(folder), ttls) if what == "asof" else through_feast(STORES[what], Path(folder), ttls)
    retrieve(entity_rows(1000))
    seconds, result = timed(lambda: retrieve(entities), runs)
    peak = peak_memory()
    result.to_parquet(Path(folder) / f"result_{what}.parquet")
    return {"seconds": seconds, "peak": peak}


def through_feast(kind: str, folder: Path, ttls: str) -> Any:
    """get_historical_features of a FeatureStore with this offline store."""
    from tasks.features.feast_import import import_feast

    import_feast()
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, String
    from feast.value_type import ValueType

    repository = Path(tempfile.mkdtemp(dir=folder))
    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(repository / "registry.db"),
        online_store=None,
        offline_store={"type": kind},
        entity_key_serialization_version=3,
    )
    config.repo_path = repository
    store = FeatureStore(config=config)
    keys = {key for keys in KEYS.values() for key in keys}
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys}
    views = [
        FeatureView(
            name=view,
            entities=[entities[key] for key in KEYS[view]],
            schema=[
                *(Field(name=k, dtype=String) for k in KEYS[view]),
                *(Field(name=f, dtype=Float64) for f in FEATURES[view]),
            ],
            ttl=ttl(view, ttls),
            source=FileSource(
                name=f"{view}_file",
                path=str(folder / f"{view}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for view in KEYS
    ]
    store.apply([*entities.values(), *views])
    references = [f"{view}:{feature}" for view in KEYS for feature in FEATURES[view]]
    return lambda rows: store.get_historical_features(entity_df=rows, features=references).to_df()


def bare(folder: Path, ttls: str) -> Any:
    """What one would write by hand: a chain of ASOF joins. It does not keep the rows' order, which the stores do."""
    import duckdb

    columns, joins = [], []
    for view, keys in KEYS.items():
        seconds = int(ttl(view, ttls).total_seconds())
        fresh = f"{view}.event_timestamp + INTERVAL {seconds} SECOND >= e.event_timestamp"
        columns += [f"CASE WHEN {fresh} THEN {view}.{feature} END AS {feature}" for feature in FEATURES[view]]
        equal = " AND ".join(f"e.{key} = {view}.{key}" for key in keys)
        joins.append(
            f"ASOF LEFT JOIN read_parquet('{folder}/{view}.parquet') {view} "
            f"ON {equal} AND e.event_timestamp >= {view}.event_timestamp"
        )
    query = f"SELECT e.*, {', '.join(columns)} FROM rows e {' '.join(joins)}"

    def retrieve(rows: pd.DataFrame) -> pd.DataFrame:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.register("rows", rows).execute(query).df()

    return retrieve


def ttl(view: str, ttls: str) -> timedelta:
    days, hours = TTLS[ttls]
    return timedelta(hours=hours) if view == "origin_state" else timedelta(days=days)


def entity_rows(size: int) -> pd.DataFrame:
    """So many requests over a year, in no order."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    carriers, origins, dests = keys()
    return pd.DataFrame(
        {
            "row": np.arange(size),
            "carrier": carriers[rng.integers(0, len(carriers), size)],
            "origin": origins[rng.integers(0, len(origins), size)],
            "dest": dests[rng.integers(0, len(dests), size)],
            "distance": rng.random(size),
            "event_timestamp": moments(rng.integers(0, 365 * 86_400, size)),
        }
    )


def make_views(folder: Path) -> None:
    """One Parquet file a view, with a value for each key and day or hour, known five minutes after its event."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(13)
    carriers, origins, dests = keys()
    values = {"carrier": carriers, "origin": origins, "dest": dests}
    for view, names in KEYS.items():
        step, count = (3600, 365 * 24) if view == "origin_state" else (86_400, 365)
        index = pd.MultiIndex.from_product([*(values[n] for n in names), range(count)], names=[*names, "number"])
        frame = index.to_frame(index=False)
        frame["event_timestamp"] = moments(frame.pop("number").to_numpy() * step)
        frame["created_timestamp"] = frame["event_timestamp"] + pd.Timedelta(minutes=5)
        for feature in FEATURES[view]:
            frame[feature] = np.where(rng.random(len(frame)) < 0.05, np.nan, rng.random(len(frame)))
        frame.sample(frac=1, random_state=1).to_parquet(folder / f"{view}.parquet", index=False)


def keys() -> tuple[Any, Any, Any]:
    import numpy as np

    return (
        np.array([f"C{i}" for i in range(16)], dtype=object),
        np.array(["EWR", "JFK", "LGA"], dtype=object),
        np.array([f"D{i:02d}" for i in range(105)], dtype=object),
    )


def moments(seconds: Any) -> Any:
    """Times in UTC, to the microsecond: DuckDB does not compare finer ones with coarser ones."""
    import pandas as pd

    return (pd.Timestamp(START) + pd.to_timedelta(seconds, unit="s")).tz_localize("UTC").as_unit("us")


def differing(folder: Path, what: str) -> int:
    """How many of the values that `what` gave are not those of ours, row by row; a missing row counts, too."""
    import duckdb

    features = [feature for names in FEATURES.values() for feature in names]
    unequal = " + ".join(f"(o.{f} IS DISTINCT FROM t.{f})::BIGINT" for f in ["row", "event_timestamp", *features])
    driftline, reference = (f"read_parquet('{folder}/result_{name}.parquet')" for name in ("ours", what))
    with duckdb.connect() as connection:
        return int(
            connection.sql(f"SELECT sum({unequal}) FROM {driftline} o FULL JOIN {reference} t USING (row)").fetchall()[
                0
            ][0]
        )


def free_memory() -> float:
    """GB that the system could give."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


if __name__ == "__main__":
    main()
