"""Sources in databases: a real PostgreSQL, and SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from services.serving.process import free_port
from tasks.core.errors import CaseError, DataError, DriftlineError, Unavailable
from tasks.data.config import Source
from tasks.data.origins.fetch import check_source, fetch_source
from tasks.data.origins.results import Fetched
from tests.data.origins.sqlite import add_rows
from tests.postgres import Postgres, running_postgres

TABLE = """CREATE TABLE sales (id bigint PRIMARY KEY, at timestamptz NOT NULL, price numeric(12, 2), paid boolean,
    day date, note text, extra jsonb, paid_at timestamptz, big numeric, words text[], ticket uuid, nothing int)"""
ROW = """INSERT INTO sales VALUES (:id, :at, 12.50, true, '2024-01-02', 'it''s: 100 %', '{"b": 1.10, "a": null}', NULL,
    123456789012345678901234567890, '{"a", "b,c"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', NULL)"""
QUERY = "SELECT * FROM sales WHERE note <> ' :x' AND price::int > 0;"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


class Sales:
    """A table in PostgreSQL, and what is fetched of it."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.server, self.folder = server, folder
        self._engine = sa.create_engine(server.url)
        self.execute("DROP TABLE IF EXISTS sales")
        self.execute(TABLE)

    def execute(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def add(self, number: int, at: datetime) -> None:
        self.execute(ROW, id=number, at=at)

    def source(self, **changes: Any) -> Source:
        uri = f"postgresql://$SALES_USER:$SALES_PASSWORD@127.0.0.1:{self.server.port}/postgres"
        times = {"time": "at", "late": {"paid_at": ("paid",)}}
        return Source(**{"uri": uri, "query": QUERY, "key": ("id",), **times, **changes})

    def fetch(self, **changes: Any) -> Fetched:
        return fetch_source(self.source(**changes), self.folder, self.folder / "cache")


@pytest.fixture
def sales(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sales:
    monkeypatch.setenv("SALES_USER", "driftline")
    monkeypatch.setenv("SALES_PASSWORD", "open sesame")
    table = Sales(postgres, tmp_path)
    for number in range(90):
        table.add(number, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number))
    return table


def rows(fetched: Fetched, select: str = "*") -> list[tuple[Any, ...]]:
    files = [str(path) for path in fetched.paths]
    return duckdb.sql(f"SET TimeZone = 'UTC'; SELECT {select} FROM read_parquet({files}) ORDER BY 1").fetchall()


def test_every_row_arrives_with_the_types_of_the_table(sales: Sales):
    """Decimals are exact, JSON keeps its letters, and a colon or a percent sign in the query is no parameter."""
    row = rows(sales.fetch(), "* EXCLUDE nothing")[1]
    assert row[:6] == (1, datetime(2024, 1, 2, tzinfo=UTC), Decimal("12.50"), True, date(2024, 1, 2), "it's: 100 %")
    assert row[6:8] == ('{"a": null, "b": 1.10}', None)
    assert row[8] == Decimal("123456789012345678901234567890")
    assert (json.loads(row[9]), row[10]) == (["a", "b,c"], "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")


def test_only_changed_months_are_read_again(sales: Sales):
    """New rows are read, and nothing else; an unchanged table costs one count."""
    first = sales.fetch()
    assert {path.parent.name for path in first.paths} == {"2024-01", "2024-02", "2024-03"}
    assert first.version.startswith("2024-03-30")
    assert sales.fetch() == first
    times = {path: path.stat().st_mtime_ns for path in first.paths}
    sales.add(100, datetime(2024, 4, 1, tzinfo=UTC))
    second = sales.fetch()
    assert second.changes == "1 new (2024-04)"
    assert {path: path.stat().st_mtime_ns for path in first.paths} == times
    assert len(rows(second)) == 91


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO sales (id, at, price, note) VALUES (200, '2024-01-15', 1, 'committed late')",
        "DELETE FROM sales WHERE id = 3",
        "UPDATE sales SET paid_at = '2024-06-01' WHERE id = 3",
        "UPDATE sales SET at = '2024-01-01 00:00:00.000001' WHERE id = 0",
    ],
)
def test_rows_that_come_late_are_not_lost(sales: Sales, change: str):
    """A row older than the watermark, a lost row and a late value change their month, which is read again."""
    first = sales.fetch()
    before = rows(first)
    sales.execute(change)
    again = sales.fetch()
    assert again.changes == "1 changed (2024-01)"
    assert again.digest != first.digest
    fresh = fetch_source(sales.source(), sales.folder, sales.folder / "fresh")
    assert rows(again) == rows(fresh) != before


def test_a_table_without_time_is_read_whole(sales: Sales):
    """Without a time nothing tells what is new: all rows are read, and equal rows have an equal digest."""
    first = sales.fetch(time=None, late={}, query="SELECT id, price FROM sales ORDER BY id")
    assert len(rows(first)) == 90
    again = sales.fetch(time=None, late={}, query="SELECT id, price FROM sales ORDER BY id")
    assert again.digest == first.digest


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"query": "SELECT * FROM nowhere"}, DataError, "query of a source failed"),
        ({"query": "SELECT id FROM sales"}, DataError, "at"),
        ({"query": "DELETE FROM sales RETURNING *"}, DataError, "query of a source failed"),
        ({"query": "WITH gone AS (DELETE FROM sales RETURNING *) SELECT * FROM gone"}, DataError, "failed"),
        ({"query": "SELECT id, id, at, paid_at FROM sales"}, DataError, "one name"),
        ({"uri": "postgresql://$SALES_USER:$SALES_PASSWORD@127.0.0.1:1/postgres"}, Unavailable, "does not answer"),
        ({"uri": "postgresql://$SALES_USER:$NOT_SET@127.0.0.1/postgres"}, CaseError, "NOT_SET"),
        ({"uri": "nothing://$SALES_USER@127.0.0.1/postgres"}, CaseError, "can't be used"),
    ],
)
def test_a_wrong_query_or_address_is_named(
    sales: Sales, changes: dict[str, str], kind: type[DriftlineError], says: str
):
    """What was fetched before stays, no row of the table is touched, and no error has the password."""
    first = sales.fetch()
    with pytest.raises(kind, match=says) as caught:
        sales.fetch(**changes)
    assert "sesame" not in str(caught.value)
    assert sales.fetch() == first


def test_the_check_needs_no_rows(sales: Sales):
    """`validate` connects and looks at the columns."""
    check_source(sales.source(), sales.folder)
    with pytest.raises(DataError, match="lacks at, paid_at"):
        check_source(sales.source(query="SELECT id FROM sales"), sales.folder)


def test_a_whole_url_may_stand_in_a_variable(sales: Sales, monkeypatch: pytest.MonkeyPatch):
    """`uri: $SALES_URL` keeps host and names out of the case, too."""
    monkeypatch.setenv("SALES_URL", f"postgresql://driftline:open%20sesame@127.0.0.1:{sales.server.port}/postgres")
    fetched = sales.fetch(uri="$SALES_URL")
    assert (fetched.uri, len(rows(fetched))) == ("$SALES_URL", 90)
    monkeypatch.setenv("SALES_URL", f"postgresql://driftline:open%20sesame@127.0.0.1:{free_port()}/postgres")
    with pytest.raises(Unavailable) as caught:
        sales.fetch(uri="$SALES_URL")
    assert "sesame" not in str(caught.value)


def sqlite(folder: Path, values: list[tuple[Any, ...]]) -> Source:
    add_rows(folder / "rows.db", values)
    return Source(uri="sqlite:///rows.db", query="SELECT * FROM t", key=("id",), time="at")


def test_sqlite_lies_in_the_folder_of_the_case(tmp_path: Path):
    """Its path starts at the case, its file is never created, and a column's types are widened over all months."""
    source = sqlite(tmp_path, [(1, "2024-01-01T00:00:00Z", None), (2, "2024-02-01T00:00:00Z", 1.5)])
    fetched = fetch_source(source, tmp_path, tmp_path / "cache")
    assert rows(fetched) == [(1, "2024-01-01T00:00:00Z", None), (2, "2024-02-01T00:00:00Z", 1.5)]
    sqlite(tmp_path, [(3, "2024-02-01T00:00:00Z", 2)])
    assert rows(fetch_source(source, tmp_path, tmp_path / "cache"), "id, value") == [(1, None), (2, 1.5), (3, 2.0)]
    with pytest.raises(DataError, match="missing"):
        fetch_source(source, tmp_path / "other", tmp_path / "cache")
    with pytest.raises(DataError, match="syntax error"):
        fetch_source(source.model_copy(update={"query": "SELEC 1"}), tmp_path, tmp_path / "cache")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("value", "at", "says"),
    [("two", "2024-03-01", "several types"), (1, "yesterday", "no time"), (2**60, "2024-03-01", "several types")],
)
def test_values_that_do_not_go_together_are_named(tmp_path: Path, value: Any, at: str, says: str):
    """SQLite keeps any value in any column; what would have to be rounded or guessed is refused."""
    source = sqlite(tmp_path, [(1, "2024-01-01", 1.5), (2, at, value)])
    with pytest.raises(DataError, match=says):
        fetch_source(source, tmp_path, tmp_path / "cache")
