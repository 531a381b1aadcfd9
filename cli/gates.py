"""`driftline gates`: known-bad candidates against the gates of a case, and mitigations side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson, CaseName, Profile

if TYPE_CHECKING:
    from flows.case import LanguageCase, TabularCase
    from tasks.core.settings import Settings
    from tasks.evaluate.config import Fairness
    from tasks.govern.selftest import Tested
    from tasks.release.results import Release
    from tasks.train.config import Mitigation

app = typer.Typer(no_args_is_help=True, help="Prove that the gates of a case can fail; compare mitigations.")


@app.command()
def selftest(case: CaseName, json: AsJson = False) -> None:
    """Judge known-bad candidates by the case's own gates. Exit code 3 when one of them would be released."""
    from cli.show import find_release
    from flows.case import load_case
    from services.store.decisions import record_selftest
    from tasks.core.console import PlainTable, console, styled
    from tasks.core.display import one_line
    from tasks.core.settings import settings
    from tasks.govern.selftest import require_caught

    config = settings()
    loaded = load_case(case, config.cases)
    release = find_release(case, None)
    tested = _selftest(loaded, release, config)
    record_selftest(case, release.digest, {each.name: list(each.caught_by) for each in tested}, config)
    if json:
        print("[" + ",\n".join(each.model_dump_json() for each in tested) + "]")
    else:
        table = PlainTable("known-bad candidate", "", "verdict", "caught by")
        for each in tested:
            outcome = each.decision if each.caught else styled("promote: GETS THROUGH", "red")
            table.add_row(each.name, one_line(each.flaw), outcome, one_line(", ".join(each.caught_by)))
        console.print(table)
    require_caught(case, tested)


def _selftest(case: TabularCase | LanguageCase, release: Release, config: Settings) -> list[Tested]:
    from flows.case import TabularCase
    from tasks.govern.selftest import find_candidate, run_selftest
    from tasks.release.seal import SCORES, verify

    sealed = verify(release.folder)["sealed"]
    if isinstance(case, TabularCase):
        candidate = find_candidate(config.state, case.name, sealed["weights"])
        return run_selftest(candidate, case.target, case.train, case.evaluate)
    import pandas as pd

    from tasks.govern.bad_answers import run_language_selftest

    return run_language_selftest(pd.read_parquet(release.folder / SCORES), case.answer, case.evaluate)


@app.command()
def mitigations(
    case: CaseName,
    by: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A sensitive column; several are crossed. Default: all.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What is to differ less, such as selection_rate.")] = "equalized_odds",
    at_most: Annotated[float, typer.Option(help="Largest difference on the training rows.")] = 0.02,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Train the champion's case unmitigated, reweighed, by reductions and with thresholds; show what each costs."""
    from cli.show import find_release
    from flows.case import load_case
    from tasks.core.console import PlainTable, console
    from tasks.core.settings import settings
    from tasks.govern.mitigations import compare_mitigations
    from tasks.govern.selftest import find_candidate
    from tasks.release.seal import verify

    config = settings()
    loaded, fairness = _with_groups(load_case(case, config.cases, profile))
    mitigation = _mitigation(tuple(by or fairness.columns[:3]), metric, at_most)
    sealed = verify(find_release(case, None).folder)["sealed"]
    candidate = find_candidate(config.state, case, sealed["weights"])
    compared = compare_mitigations(candidate, loaded.target, loaded.train, fairness=fairness, mitigation=mitigation)
    if json:
        print("[" + ",\n".join(each.model_dump_json() for each in compared) + "]")
        return
    shown = list(compared)
    quality, differences = shown[0].metrics, shown[0].differences
    table = PlainTable("train", *quality, "change of error", *(f"{name} differs by" for name in differences))
    for each in shown:
        values = [f"{each.metrics.get(name, float('nan')):.4f}" for name in quality]
        intervals = [str(each.differences.get(name, "-")) for name in differences]
        row = [*values, f"{each.cost or '-'}", *intervals] if not each.problem else [each.problem]
        table.add_row(each.name, *row)
    console.print(table)
    print(f"{', '.join(mitigation.columns)}: {mitigation.metric} at most {mitigation.at_most:g} on the training rows")


def _with_groups(loaded: TabularCase | LanguageCase) -> tuple[TabularCase, Fairness]:
    from flows.case import TabularCase
    from tasks.core.errors import InputError

    if isinstance(loaded, TabularCase) and loaded.evaluate.fairness and loaded.target.task == "classification":
        return loaded, loaded.evaluate.fairness
    raise InputError(
        "The case compares no groups of people in decisions between two classes.",
        where=loaded.name,
        found="a language case" if not isinstance(loaded, TabularCase) else f"target.task: {loaded.target.task}",
        allowed="kind: tabular, target.task: classification, evaluate.fairness with columns",
        todo="Name sensitive columns under evaluate.fairness.",
    )


def _mitigation(columns: tuple[str, ...], metric: str, at_most: float) -> Mitigation:
    from pydantic import ValidationError

    from tasks.core.errors import InputError
    from tasks.train.config import Mitigation

    try:
        return Mitigation.model_validate({"columns": columns, "metric": metric, "at_most": at_most})
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}".replace("_", "-").replace("--columns", "--by")
        raise InputError("The option is not valid.", where=where, found=first["msg"]) from error
