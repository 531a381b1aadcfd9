"""Months of a changing world played again under three policies, killed in the middle, and started again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.changing import make_case
from tests.end_to_end.terminal import Done, Terminal, World

REPLAY = "replay visits --from 2024-03 --to 2024-06-30 --json"
MONTHS = ["2024-03", "2024-04", "2024-05", "2024-06"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("visits")
    candidates = World(folder, folder / "cases")
    make_case(candidates.cases)
    return candidates


@pytest.fixture(scope="module")
def report(world, terminal: Terminal) -> Done:
    """Undisturbed, from nothing."""
    done = terminal.run(world, f"{REPLAY} {world.folder / 'figures.json'}")
    assert done.code == 0, done.output
    return done


def read(path: Path) -> dict:
    """A replay's figures but for its timings."""
    figures = json.loads(path.read_text())
    for part in (*figures["policies"].values(), *(p for month in figures["months"].values() for p in month.values())):
        part.pop("seconds")
        part.pop("cost", None)
    return figures


def test_policies_are_worth_what_the_world_allows(world, report):
    """Purchases rise in March: retraining gains, once is enough, and a candidate of a week that says nothing is out."""
    figures = json.loads((world.folder / "figures.json").read_text())
    assert list(figures["months"]) == MONTHS
    never, monthly, decide = (figures["policies"][name] for name in ("never", "monthly", "decide"))
    assert (never["retrains"], monthly["retrains"], decide["retrains"]) == (0, 3, 1)
    assert monthly["rejections"] == 1
    assert figures["months"]["2024-04"]["monthly"]["outcome"] == "rejected"
    assert figures["months"]["2024-03"]["decide"]["outcome"] == "promoted"
    assert any("too low" in reason for reason in figures["months"]["2024-03"]["decide"]["decision"]["reasons"])
    assert monthly["gain"]["low"] > 0
    assert decide["gain"]["low"] > 0
    assert never["brier_mean"] - decide["brier_mean"] > 0.02
    assert 0 == never["cost"] < decide["cost"] < monthly["cost"]
    for month in MONTHS:
        assert len({part["rows"] for part in figures["months"][month].values()}) == 1
    assert figures["months"]["2024-03"]["never"]["brier"] == figures["months"]["2024-03"]["monthly"]["brier"]


def test_it_ends_with_a_table_and_a_page(world, report):
    """The terminal ends with a line a policy and where the report lies; the page asks for nothing from outside."""
    tail = report.output.strip().splitlines()
    assert [line.split()[0] for line in tail[-4:-1]] == ["never", "monthly", "decide"]
    page = Path(tail[-1].removeprefix("report: ")).read_text()
    assert page.count("<svg") == 3
    assert "src=" not in page
    assert "<link" not in page


def test_nothing_of_it_reaches_the_real_world(world, report):
    """No champion, registry, ledger, prediction or snapshot outside the replay's own folder."""
    assert {path.name for path in world.state.iterdir()} <= {"prefect", "replay", "scratch"}
    assert not list(world.state.glob("scratch/*"))
    assert not world.data.exists()


def test_started_again_it_finds_all_of_it(world, report, terminal):
    """A second time nothing is trained, scored or measured, and the figures are the same, timings and all."""
    first = (world.folder / "figures.json").read_bytes()
    candidates = sorted(world.state.glob("replay/visits/world-*/candidates/*/*"))
    done = terminal.run(world, f"{REPLAY} {world.folder / 'again.json'}")
    assert done.code == 0, done.output
    assert (world.folder / "again.json").read_bytes() == first
    assert sorted(world.state.glob("replay/visits/world-*/candidates/*/*")) == candidates


def test_killed_in_the_middle_and_started_again(world, report, terminal, tmp_path):
    """kill -9 while a month is played: the second start goes on, and ends with the figures of the undisturbed run."""
    mine = World(tmp_path, world.cases)
    running = terminal.start(mine, f"{REPLAY} {tmp_path / 'figures.json'}")
    assert running.wait_for(7), running.text()  # the second month has begun
    running.kill()
    candidates = {path.name for path in mine.state.glob("replay/visits/world-*/candidates/*/*")}
    assert candidates
    done = terminal.run(mine, f"{REPLAY} {tmp_path / 'figures.json'}")
    assert done.code == 0, done.output
    assert read(tmp_path / "figures.json") == read(world.folder / "figures.json")
    assert candidates <= {path.name for path in mine.state.glob("replay/visits/world-*/candidates/*/*")}
