"""What `driftline new` takes to read and profile a long and a wide file, and how much memory.

    python -m benchmarks.profile [--quick] [--json FILE]

The files are CSV of 1 million rows with 30 columns, and of 10,000 rows with 1,500; each has a process of its own.
"""

from __future__ import annotations

import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, peak_memory
from tasks.core.duckdb import connect, quote_path

LONG = {  # the columns of the long file, in SQL over i, the number of the row
    "id": "i",
    "word": "['red', 'green', 'blue'][1 + i % 3]",
    "code": "'C' || lpad((hash(i) % 5000)::VARCHAR, 6, '0')",
    "day": "DATE '2020-01-01' + (hash(i + 1) % 2000)::INT",
    "at": "TIMESTAMP '2020-01-01' + INTERVAL (i % 50000000) SECOND",
    "late_day": "strftime(DATE '2020-01-01' + (hash(i + 2) % 2000)::INT, '%d.%m.%Y')",
    "gaps": "CASE WHEN hash(i + 3) % 20 = 0 THEN '?' ELSE (hash(i + 3) % 1000)::VARCHAR END",
    "note": "'order ' || hash(i) || ' was sent to ' || ['Wien', 'Graz'][1 + i % 2] || ' by post'",
    "y": "(hash(i + 4) % 2)::INT",
}


REQUIRED = {"long_profile_s": "<= 10", "wide_profile_s": "<= 10"}


def main() -> None:
    options = arguments("The profile of a long and of a wide file.")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    report = Report(
        "Profiles", ["file", "rows", "columns", "read s", "profile s", "scores, page s", "peak MB"], REQUIRED
    )
    share = 20 if options.quick else 1
    sizes = {"long": (1_000_000 // share, 30), "wide": (10_000 // share, 1_500 // share)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (rows, columns) in sizes.items():
            file = _write(Path(folder) / f"{name}.csv", rows, _columns(name, columns))
            found = in_own_process("benchmarks.profile", file=str(file))
            report.row(name, rows, columns, *found.values())
            report.figure(f"{name}_read_s", found["read"])
            report.figure(f"{name}_profile_s", found["profile"] + found["scores"])
    report.finish(["duckdb", "pandas", "numpy"], options.json)


def _columns(name: str, count: int) -> dict[str, str]:
    """The columns of a file, in SQL over i, the number of the row."""
    first = LONG if name == "long" else {"y": LONG["y"]}
    numbers = {f"x{i}": f"round(hash(i * 31 + {i}) % 100000 / 7, 3)" for i in range(count - len(first))}
    return {**first, **numbers}


def _write(path: Path, rows: int, columns: dict[str, str]) -> Path:
    select = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    with connect() as db:
        db.execute(f"COPY (SELECT {select} FROM range({rows}) AS rows(i)) TO {quote_path(path)} (HEADER)")
    return path


def measure(file: str) -> dict[str, Any]:
    """Seconds of reading, of the profile, and of its scores and page; the peak of memory in MB."""
    from cli.new_profile import open_files
    from tasks.data.profile.measure import profile_table
    from tasks.data.profile.page import write_page
    from tasks.data.profile.single_columns import score_columns

    path, seconds = Path(file), [time.perf_counter()]
    with open_files(path.name, [path]) as (db, _):
        seconds.append(time.perf_counter())
        profile, frame = profile_table(db, path.name)
        seconds.append(time.perf_counter())
        write_page(score_columns(profile, frame, "y", "classification"), [], path.with_suffix(".html"))
        seconds.append(time.perf_counter())
    read, profiled, scored = (round(b - a, 2) for a, b in pairwise(seconds))
    return {"read": read, "profile": profiled, "scores": scored, "peak_mb": round(peak_memory())}


if __name__ == "__main__":
    main()
