"""Promise: a retraction that is killed half way goes on by the same command, and nothing of the row is left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.data.retracted import read_retracted
from tests.end_to_end.small import make_case
from tests.end_to_end.terminal import Terminal, World

COMMAND = "retract diabetes --row 7 --confirm"


@pytest.fixture(scope="module")
def released(tmp_path_factory, terminal: Terminal) -> World:
    folder = tmp_path_factory.mktemp("retracted")
    world = World(folder, folder / "cases")
    make_case(world.cases)
    done = terminal.run(world, "run diabetes")
    assert done.code == 0, done.output
    return world


def test_a_killed_retraction_goes_on(released: World, terminal: Terminal) -> None:
    """Killed by -9 once the row is listed and while its files are removed or the model is trained again."""
    before = released.champion("diabetes")
    running = terminal.start(released, COMMAND)
    raw = released.data / "raw" / "diabetes"
    deadline = time.monotonic() + 60
    while not read_retracted(raw) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    assert len(read_retracted(raw)) == 1
    done = terminal.run(released, COMMAND)
    assert done.code == 0, done.output
    assert "nothing of the row is left; proof: audit record" in done.output
    after = released.champion("diabetes")
    assert after != before
    assert not list((released.state / "releases" / "diabetes").glob(f"{before[:12]}*"))
    again = terminal.run(released, "retract diabetes --row 7", "audit verify")
    assert again.code == 0, again.output
    assert "intact" in again.output


def test_the_source_of_a_case_is_not_touched(released: World) -> None:
    """Its owner decides on it; the platform leaves the row out of each later snapshot."""
    source: Path = released.cases / "diabetes" / "patients.csv"
    assert "\n7," in source.read_text()
