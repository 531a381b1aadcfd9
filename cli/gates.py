"""`driftline gates selftest`: known-bad candidates against the gates of a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cli.options import AsJson, CaseName

if TYPE_CHECKING:
    from flows.case import LanguageCase, TabularCase
    from tasks.core.settings import Settings
    from tasks.govern.selftest import Tested
    from tasks.release.results import Release

app = typer.Typer(no_args_is_help=True, help="Prove that the gates of a case can fail.")


@app.callback()
def gates() -> None:
    """Keep `selftest` a command of its own."""


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
