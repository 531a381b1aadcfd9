"""What `driftline new` takes to read and profile a long and a wide file, and how much memory.

Run:  python -m benchmarks.profile [--rows 1000000] [--columns 1500]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=1_500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = {f"x{i}": f"round(hash(i * 31 + {i}) % 100000 / 7, 3)" for i in range(30 - len(LONG))}
        wide = {f"x{i}": f"round(hash(i * 31 + {i}) % 100000 / 7, 3)" for i in range(arguments.columns - 1)}
        long_file = _write(Path(folder) / "long.csv", arguments.rows, {**LONG, **numbers})
        wide_file = _write(Path(folder) / "wide.csv", 10_000, {**wide, "y": "(hash(i) % 2)::INT"})
        for file in (long_file, wide_file):
            print(json.dumps(measure(file)))


def _write(path: Path, rows: int, columns: dict[str, str]) -> Path:
    select = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    with connect() as db:
        db.execute(f"COPY (SELECT {select} FROM range({rows}) AS rows(i)) TO {quote_path(path)} (HEADER)")
    return path


def measure(file: Path) -> dict[str, object]:
    """Seconds of reading, of the profile and of its scores and page, and the peak of memory in GB."""
    from cli.new_profile import open_files
    from tasks.data.profile.measure import profile_table
    from tasks.data.profile.page import write_page
    from tasks.data.profile.single_columns import score_columns

    started = time.perf_counter()
    with open_files(file.name, [file]) as (db, _):
        read = time.perf_counter()
        profile, frame = profile_table(db, file.name)
        profiled = time.perf_counter()
        profile = score_columns(profile, frame, "y", "classification")
        write_page(profile, [], file.with_suffix(".html"))
    ended = time.perf_counter()
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return {
        "file": file.name,
        "rows": profile.rows,
        "columns": len(profile.columns),
        "read_seconds": round(read - started, 1),
        "profile_seconds": round(profiled - read, 1),
        "score_seconds": round(ended - profiled, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2),
    }


if __name__ == "__main__":
    main()
