"""`driftline new`: create a case from a data file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from cli.new_options import TableOptions
from tasks.core.display import escape_terminal
from tasks.core.errors import InputError
from tasks.core.files import temporary_folder, write_text
from tasks.core.permissions import write_shared
from tasks.core.settings import settings


app = typer.Typer()


@app.command()
def new(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Name of the new case, and of its folder in configs/.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Any file that `run` reads, such as .csv."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column to predict. Without it, FILE is a .jsonl of messages and answers.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression. Default: by the target's values.")
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="The one of two classes whose probability is predicted. Default: the last sorted."),
    ] = None,
    key: Annotated[
        list[str],
        typer.Option(help="Key column; repeatable. Default: a unique id column, else each row's content."),
    ] = [],  # noqa: B006
    time: Annotated[str | None, typer.Option(help="Time column; the latest rows become the hold-out set.")] = None,
    drop: Annotated[list[str], typer.Option(help="Column that is no feature; repeatable.")] = [],  # noqa: B006
    text: Annotated[list[str], typer.Option(help="Column of free text; repeatable. Default: by its words.")] = [],  # noqa: B006
    metric: Annotated[str | None, typer.Option(help="Metric to be gated and watched. Default: auc or r2.")] = None,
    profile_only: Annotated[bool, typer.Option("--profile-only", help="Show the profile; write no case.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Compare the sources of CASE with its columns; FILE is not needed.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="With --refresh: write the columns into case.yaml.")] = False,
) -> None:
    """Create a case from a data file: profiles it, and writes a case.yaml that runs as it is."""
    if refresh:
        from cli.new_refresh import refresh_columns

        typer.echo(escape_terminal(refresh_columns(case, write=write)))
        return
    if file is None:
        raise InputError("The file is missing.", where="FILE", todo=f"driftline new {case} FILE --target COLUMN")
    options = TableOptions(
        target=target,
        task=task,
        positive=positive,
        key=tuple(key),
        time=time,
        drop=tuple(drop),
        text=tuple(text),
        metric=metric,
    )
    typer.echo(escape_terminal(create_case(case, file, options, profile_only=profile_only)))


def create_case(name: str, file: Path, options: TableOptions, *, profile_only: bool = False) -> str:
    """Write and validate a case.yaml: of a table, or without a target of a language case.

    Raises: InputError, DataError. Nothing is written unless the case is valid.
    """
    path = settings().cases / name / "case.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise InputError("The case name is not valid.", where="CASE", found=name, allowed="a-z, 0-9, _ and -")
    if path.exists() and not profile_only:
        raise InputError("A case of that name exists.", where=str(path), todo="Edit that file, or choose another name.")
    if profile_only or options.target is not None:
        from cli.new_profile import describe_table, profile_file

        profiled = profile_file(name, file, options)
        if profile_only:
            return describe_table(profiled)
        lines, summary = profiled.case_lines(_uri(file, path.parent))
    elif file.suffix.lower() == ".jsonl":
        from cli.new_language import write_language_case

        lines, summary = write_language_case(file, _uri(file, path.parent))
    else:
        raise InputError(
            "The target column is missing.",
            where="--target",
            found=f"no target, and {file.name} is not a .jsonl file of messages and answers",
            todo=f"driftline new {name} {file} --target COLUMN; its columns: "
            f"driftline new {name} {file} --profile-only",
        )
    head = f"# Begun by `driftline new` from {file.name}: a starting point; edit any line."
    text = "\n".join([head, *lines, ""])
    valid = _validate(name, text)
    write_shared(path, text)
    return f"{path}: {summary}\n{valid}"


def _uri(file: Path, folder: Path) -> str:
    folder, file = folder.resolve(), file.resolve()
    near = file.is_relative_to(folder.parents[1])  # a relative path also works in a clone
    return f"file://{os.path.relpath(file, folder) if near else file}"


def _validate(name: str, text: str) -> str:
    """Check the case before it stands among the others, so that no invalid one is left there."""
    from cli.check import check_case
    from flows.case import load_case

    with temporary_folder("new") as folder:
        write_text(Path(folder) / name / "case.yaml", text)
        return check_case(load_case(name, Path(folder)))
