"""`driftline prompt`: the prompts of a language case, as versions with tests, evidence and a history."""

from __future__ import annotations

import difflib
import json
from contextlib import closing
from typing import Annotated, Any

import typer

from cli.options import AsJson, CaseName

app = typer.Typer(no_args_is_help=True, help="Compare, render, test and trace the prompts of a language case.")

PromptName = Annotated[
    str | None,
    typer.Option(
        "--prompt", help="A file of prompts/, a version, a digest, candidate, production. Default: the case's."
    ),
]
Reference = Annotated[str, typer.Argument(help="A file of prompts/, a version, a digest, candidate or production.")]


@app.command(name="list")
def list_prompts(case: CaseName, as_json: AsJson = False) -> None:
    """List the prompt files of a case and the versions in the registry, with their aliases."""
    from cli.prompt_reference import language_case
    from tasks.core.console import PlainTable, console
    from tasks.core.settings import settings
    from tasks.language.prompt_file import load_prompt, prompt_files
    from tasks.release.prompt_registry import registered_prompts

    found = language_case(case)
    current = found.chat_spec.prompt
    versions = registered_prompts(settings().tracking, case)
    rows: list[dict[str, Any]] = [
        {"version": str(each.version), "name": each.name, "digest": each.digest, "aliases": list(each.aliases)}
        for each in versions
    ]
    known = {each.digest for each in versions}
    files = [load_prompt(path).bound(**found.answer.texts) for path in prompt_files(found.folder)]
    for prompt in dict.fromkeys((current.digest, *(each.digest for each in files))):
        if prompt not in known:
            name = next((each.name for each in (current, *files) if each.digest == prompt), "")
            rows.insert(0, {"version": "", "name": name, "digest": prompt, "aliases": []})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = PlainTable("version", "prompt", "digest", "aliases", "")
    for row in rows:
        place = "in the case" if row["digest"] == current.digest else ""
        table.add_row(row["version"], row["name"] or "inline", row["digest"][:12], ", ".join(row["aliases"]), place)
    console.print(table)


@app.command()
def show(case: CaseName, prompt: PromptName = None) -> None:
    """Print a prompt with its digest."""
    from cli.prompt_reference import language_case, prompt_text, resolve_prompt
    from tasks.core.console import console

    found = resolve_prompt(language_case(case), prompt)
    console.print(f"# {found.prompt.label}: {found.title}")
    console.print(prompt_text(found.prompt).rstrip())


@app.command()
def diff(case: CaseName, before: Reference, after: Reference) -> None:
    """Compare two prompts, line by line."""
    from cli.prompt_reference import language_case, prompt_text, resolve_prompt
    from tasks.core.console import console

    sides = [resolve_prompt(language_case(case), each) for each in (before, after)]
    first, second = (prompt_text(side.prompt).splitlines() for side in sides)
    titles = [f"{side.title} {side.prompt.label}" for side in sides]
    lines = list(difflib.unified_diff(first, second, fromfile=titles[0], tofile=titles[1], lineterm=""))
    console.print("\n".join(lines) or f"{titles[0]} and {titles[1]} are equal")


@app.command()
def render(
    case: CaseName,
    message: Annotated[str, typer.Argument(help="What the user writes.")],
    prompt: PromptName = None,
    as_json: AsJson = False,
) -> None:
    """Print the messages that the model gets, as evaluation and service render them."""
    from cli.prompt_reference import language_case, resolve_prompt
    from tasks.core.console import console, styled
    from tasks.language.messages import USER, chat_message
    from tasks.language.prompts import render as render_prompt

    chosen = resolve_prompt(language_case(case), prompt).prompt
    messages = render_prompt(chosen, [chat_message(USER, message)])
    if as_json:
        print(json.dumps(messages, indent=2, ensure_ascii=False))
        return
    for each in messages:
        console.print(styled(f"{each['role']}:", "dim"))
        console.print(each["content"])


@app.command()
def history(case: CaseName, as_json: AsJson = False) -> None:
    """Print who moved the aliases candidate and production, when, and by which verdict and release."""
    from services.store.database import Store
    from services.store.prompt_history import prompt_history
    from tasks.core.console import PlainTable, console
    from tasks.core.settings import settings

    config = settings()
    with closing(Store(config)) as store:
        moves = prompt_history(store, config.state, case)
    if as_json:
        print(json.dumps([move.model_dump(mode="json") for move in moves], indent=2))
        return
    if not moves:
        console.print(f"No prompt of {case} has been released: driftline run {case}")
        return
    table = PlainTable("when", "who", "alias", "prompt", "release", "evidence")
    for move in moves:
        when = f"{move.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(when, move.actor, move.alias, move.prompt, move.release[:12], move.evidence)
    console.print(table)


@app.command(name="test")
def run_tests(case: CaseName, prompt: PromptName = None, as_json: AsJson = False) -> None:
    """Run the tests of a prompt, beside the champion's prompt. Exit code 3: rejected; 7: not shown."""
    from cli.prompt_trial import test_prompt

    test_prompt(case, prompt, as_json)


@app.command()
def optimize(
    case: CaseName,
    budget: Annotated[str, typer.Option(help="Calls or time that the search may take: 2000-calls, 90s, 10m, 1h.")],
    as_json: AsJson = False,
) -> None:
    """Search a better prompt, and write it as a new file of prompts/. The gates judge it once the case names it."""
    from cli.prompt_optimize import optimize as search_prompt

    search_prompt(case, budget, as_json)
