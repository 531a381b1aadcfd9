"""From a file to a judged model in two commands, whatever its columns are called."""

from __future__ import annotations

import json

from tests.end_to_end.shop import write_shop
from tests.end_to_end.terminal import Terminal, World


def test_a_case_begun_from_a_file_trains(tmp_path, terminal: Terminal):
    """Names with blanks, accents and SQL's own words; values that YAML would take for something else."""
    file, out = write_shop(tmp_path / "order.csv"), tmp_path / "out.json"
    world = World(tmp_path, tmp_path / "cases")
    done = terminal.run(world, f"new shop {file} --target spent", f"plain train shop {out}")
    assert done.code == 0, done.output
    report = json.loads(out.read_text())
    assert report["decision"] == "promote"
    assert report["r2"] > 0.8, "what was spent follows from the others"
