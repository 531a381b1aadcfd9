"""`driftline gates selftest`: known-bad candidates against the gates of a case."""

from __future__ import annotations

from contextlib import closing

import typer

from cli.options import AsJson, CaseName
from tasks.core.errors import GateFailed, InputError

SELFTEST = "gates.selftest"
app = typer.Typer(no_args_is_help=True, help="Prove that the gates of a case can fail.")


@app.callback()
def gates() -> None:
    """Keep `selftest` a command of its own."""


@app.command()
def selftest(case: CaseName, json: AsJson = False) -> None:
    """Judge known-bad candidates by the case's own gates. Exit code 3 when one of them would be released."""
    from cli.show import find_release
    from flows.case import TabularCase, load_case
    from services.store.audit import record_audit_event
    from services.store.database import Store
    from tasks.core.console import PlainTable, console, styled
    from tasks.core.display import one_line
    from tasks.core.settings import settings
    from tasks.govern.selftest import find_candidate, run_selftest
    from tasks.release.seal import read_manifest

    config = settings()
    loaded = load_case(case, config.cases)
    if not isinstance(loaded, TabularCase):
        raise InputError(
            "The gates of a language case have no self-test yet.", where=case, allowed="a case with kind: tabular"
        )
    release = find_release(case, None)
    candidate = find_candidate(config.state, case, read_manifest(release.folder)["sealed"]["weights"])
    tested = run_selftest(candidate, loaded.target, loaded.train, loaded.evaluate)
    missed = [each for each in tested if not each.caught]
    with closing(Store(config)) as store, store.writing() as connection:
        results = {each.name: list(each.caught_by) for each in tested}
        record_audit_event(
            connection, SELFTEST, release.digest, case=case, gates=loaded.evaluate.digest, caught=results
        )
    if json:
        print("[" + ",\n".join(each.model_dump_json() for each in tested) + "]")
    else:
        table = PlainTable("known-bad candidate", "", "verdict", "caught by")
        for each in tested:
            outcome = each.decision if each.caught else styled("promote: GETS THROUGH", "red")
            table.add_row(each.name, one_line(each.flaw), outcome, one_line(", ".join(each.caught_by)))
        console.print(table)
    if missed:
        raise GateFailed(
            f"{len(missed)} of {len(tested)} known-bad candidates would be released.",
            where=case,
            found=", ".join(each.name for each in missed),
            allowed="none",
            todo=f"Set {', '.join(dict.fromkeys(each.gate for each in missed))} in the case.",
        )
