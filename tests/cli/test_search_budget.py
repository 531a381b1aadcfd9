"""`driftline search` ends with its budget, also while it prepares the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.search_case import Workplace
from benchmarks.search_tables import TABLES, write_case


def test_a_budget_that_ends_in_preparing_ends_the_search(tmp_path: Path) -> None:
    """A tenth of a second is over before the first import; the error names the budget."""
    table, task = TABLES["diabetes"]()
    with Workplace(tmp_path) as place:
        write_case(place, table, task)
        command = [sys.executable, "-m", "cli.main", "search", "table", "--budget", "0.1s"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "found:   0.1 s, all of which went into preparing the data" in done.stderr
    assert not list(tmp_path.glob("state/searches/table/*/trials/*"))
