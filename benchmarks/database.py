"""Time and memory of fetching a table of PostgreSQL: the first time, unchanged, and with one late row.

    SCRATCH_DATABASE=postgresql://USER@HOST/DATABASE python -m benchmarks.database [--quick] [--json FILE]

It creates a table driftline_benchmark of 1,000,000 rows of 8 columns there (--quick: 50,000), and drops it.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import MB, Report, arguments

VARIABLE = "SCRATCH_DATABASE"
TABLE = "driftline_benchmark"
CREATE = """CREATE TABLE {table} AS SELECT i AS id, timestamptz '2023-01-01' + i * interval '31 seconds' AS at,
    (random() * 1000)::numeric(10, 2) AS price, random() AS a, random() AS b, md5(i::text) AS note,
    mod(i, 7) AS items, NULL::timestamptz AS paid_at FROM generate_series(1, {rows}) i"""
LATE = "INSERT INTO {table} VALUES (-1, '2023-01-02', 1, 1, 1, 'late', 1, NULL)"


def main() -> int:
    import sqlalchemy as sa

    from tasks.data.origins.address import Address
    from tasks.data.origins.fetch import fetch

    options = arguments("Fetching a table of PostgreSQL.")
    if not os.environ.get(VARIABLE):
        print(f"Set {VARIABLE} to the URL of a PostgreSQL database.", file=sys.stderr)
        return 2
    rows = 50_000 if options.quick else 1_000_000
    address = Address(f"${VARIABLE}", f"SELECT * FROM {TABLE}", ("at", "paid_at"))
    url = os.environ[VARIABLE].replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(url)
    report = Report(f"A table of {rows:,} rows", ["fetch", "seconds", "peak memory (MB)"])
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(CREATE.format(table=TABLE, rows=rows).replace("::", r"\:\:")))
            connection.execute(sa.text(f"CREATE INDEX ON {TABLE} (at)"))
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first", "unchanged", "one late row"):
                if name == "one late row":
                    with engine.begin() as connection:
                        connection.execute(sa.text(LATE.format(table=TABLE)))
                started = time.perf_counter()
                fetch(address, Path(folder), Path(folder) / "cache")
                seconds = time.perf_counter() - started
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
                report.row(name, round(seconds, 2), round(peak))
                report.figure(name.replace(" ", "_"), seconds)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {TABLE}"))
        engine.dispose()
    report.finish(["psycopg", "pyarrow", "sqlalchemy"], options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
