"""`driftline guard`: the rules of a case, tried on texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.guard_diff import diff
from cli.guard_test import run_test
from cli.guard_train import train
from cli.options import AsJson, CaseName, Profile

if TYPE_CHECKING:
    from flows.case import LanguageCase, TabularCase
    from tasks.guard.config import Guardrails, Stage
    from tasks.guard.engine import GuardEngine
    from tasks.guard.trial import GuardPlaces

app = typer.Typer(no_args_is_help=True, help="Try the guardrails of a case, and see what they did.")
STAGES: dict[str, Stage] = {"input": "input", "passage": "passages", "output": "output", "tool": "tools"}

app.command()(train)
app.command()(diff)
app.command(name="test")(run_test)


@app.command()
def check(
    case: CaseName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="One object a line, with `text`.")
    ],
    stage: Annotated[
        Literal["input", "passage", "output", "tool"], typer.Option(help="Where the texts stand in a call.")
    ] = "input",
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Apply the rules of a case to texts, without a model: action, rules and redacted text of each."""
    from tasks.guard.results import Context

    rows, engine = _read(file), open_engine(case, profile)
    for row in rows:
        context = Context(passages=tuple(row.get("passages") or ()))
        result = engine.check(row["text"], STAGES[stage], context=context)
        shown = {
            "action": result.action,
            "rules": [
                {"rule": each.rule, "action": each.action, "mode": each.mode, "found": each.note, "error": each.error}
                for each in result.fired
            ],
            "text": result.text,
        }
        typer.echo(json.dumps(shown, ensure_ascii=False) if as_json else _line(shown))


@app.command()
def report(
    case: CaseName,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days up to today.")] = 14,
    appeals: Annotated[
        Path | None, typer.Option(help="Add the refused requests that people judged to this labelled set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show by day what the guardrails did: share of the calls with its interval, and how people judged refusals."""
    from contextlib import closing
    from dataclasses import asdict

    from services.store.database import Store
    from services.store.guardrails import guardrail_days
    from tasks.core.console import PlainTable, console
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        rows = guardrail_days(store, case, days)
    if appeals:
        from cli.guard_appeals import write_appeals

        typer.echo(f"{write_appeals(case, appeals)} judged requests in {appeals}", err=as_json)
    if as_json:
        typer.echo(json.dumps([{**asdict(row), "day": str(row.day)} for row in rows], indent=1))
        return
    table = PlainTable("day", "rule", "outcome", "calls", "of", "share", "interval", "judged", "wrong")
    for row in rows:
        table.add_row(
            str(row.day),
            f"{row.stage}/{row.rule}",
            row.outcome,
            f"{row.calls:,}",
            f"{row.of:,}",
            f"{row.calls / row.of:.1%}",
            f"{row.low:.1%} - {row.high:.1%}",
            str(row.judged),
            str(row.wrong),
        )
    console.print(table if rows else "No rule found anything.")


def open_engine(case: str, profile: str | None = None) -> GuardEngine:
    """The rules of a case as it is configured now. Raises: CaseError when it has none."""
    from tasks.guard.engine import GuardEngine

    guardrails, places = case_guardrails(case, profile)
    return GuardEngine(guardrails, places.classifiers, places.embedder)


def case_guardrails(case: str, profile: str | None = None) -> tuple[Guardrails, GuardPlaces]:
    """The rules of a case, and where their files lie. Raises: CaseError when it has none; NoDataYet."""
    from flows.case import load_case
    from tasks.core.errors import CaseError
    from tasks.core.settings import settings
    from tasks.guard.files import find_guard_spec, trained_folder
    from tasks.guard.trial import GuardPlaces

    config = settings()
    chosen = load_case(case, config.cases, profile)
    if chosen.guardrails.is_empty:
        raise CaseError(
            f"Case {case} has no guardrails.",
            where=str(chosen.folder / "case.yaml"),
            todo="Add guardrails with rules; see docs/guides/guardrails.md.",
        )
    find_guard_spec(chosen.guardrails, config.state)
    return chosen.guardrails, GuardPlaces(trained_folder(config.state), config.data, _embedder(chosen))


def _embedder(case: TabularCase | LanguageCase) -> tuple[Path, Path | None] | None:
    from flows.case import LanguageCase
    from tasks.data.language.embedder_files import find_embedder

    if not isinstance(case, LanguageCase):
        return None
    source = case.knowledge.embedder if case.knowledge else case.serve.embedder
    files = find_embedder(source, case.folder) if source else None
    return (files.folder, files.tokenizer) if files else None


def _read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file. Raises: InputError naming the first line that is not an object with `text`."""
    from tasks.core.errors import InputError

    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(
                "A line is not an object with a text.",
                where=f"{file}, line {number}",
                found=line[:80],
                allowed='{"text": "..."}',
            )
        rows.append(row)
    return rows


def _line(shown: dict[str, Any]) -> str:
    from tasks.core.display import escape_terminal

    rules = ", ".join(
        f"{each['rule']}{' (shadow)' if each['mode'] == 'shadow' else ''}"
        + (f": {each['error'] or each['found']}" if each["error"] or each["found"] else "")
        for each in shown["rules"]
    )
    text = " ".join(shown["text"].split())
    return escape_terminal(f"{shown['action']:<7} {text[:100]}" + (f"\n        {rules}" if rules else ""))
