"""`driftline new`: create a case from a data file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.new_options import TableOptions
from tasks.core.display import escape_terminal, one_line
from tasks.core.errors import InputError
from tasks.core.files import temporary_folder, write_text
from tasks.core.permissions import write_shared
from tasks.core.settings import settings

if TYPE_CHECKING:
    from cli.new_files import DataFiles
    from flows.case import LanguageCase, TabularCase

app = typer.Typer()


@app.command()
def new(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Name of the new case, and of its folder in configs/.")],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="What `run` reads: a file, folder or glob pattern, https://, s3://, a database address; or a folder "
            "of documents (Markdown, HTML, PDF, text) to answer from.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Column to predict. Without it, FILE holds messages and answers (.jsonl), or documents."),
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
    query: Annotated[str, typer.Option(help="The rows to read, of a database address.")] = "",
    profile_only: Annotated[bool, typer.Option("--profile-only", help="Show the profile; write no case.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Compare the sources of CASE with its columns; FILE is not needed.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="With --refresh: write the columns into case.yaml.")] = False,
) -> None:
    """Create a case from a data file or from documents, and write a case.yaml that runs as it is."""
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
    typer.echo(escape_terminal(create_case(case, file, options, query=query, profile_only=profile_only)))


def create_case(
    name: str, file: str | Path, options: TableOptions, *, query: str = "", profile_only: bool = False
) -> str:
    """Write and validate a case.yaml: of a table, or without a target of a language case.

    Raises: InputError, DataError. Nothing is written unless the case is valid.
    """
    path = settings().cases / name / "case.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise InputError("The case name is not valid.", where="CASE", found=name, allowed="a-z, 0-9, _ and -")
    if path.exists() and not profile_only:
        raise InputError("A case of that name exists.", where=str(path), todo="Edit that file, or choose another name.")
    from cli.new_documents import documents_case, find_documents
    from cli.new_files import fetch_files

    if options.target is None and not profile_only and (documents := find_documents(str(file))):
        lines, summary = documents_case(name, str(file), documents, path.parent)
        return _write(name, path, _text(Path(file).resolve().name, lines), summary)
    with temporary_folder("fetched") as folder:
        data = fetch_files(str(file), query, path.parent, Path(folder))
        if profile_only:
            from cli.new_profile import describe_table, profile_file

            return describe_table(profile_file(name, data, options))
        if options.target is not None:
            lines, summary = _table_case(name, data, options)
        elif data.paths[0].suffix.lower() == ".jsonl":
            from cli.new_language import write_language_case

            lines, summary = write_language_case(data)
        else:
            raise InputError(
                "The target column is missing.",
                where="--target",
                found=f"no target, and {data.name} is not a .jsonl file of messages and answers",
                todo=f"driftline new {name} {file} --target COLUMN; its columns: "
                f"driftline new {name} {file} --profile-only",
            )
    return _write(name, path, _text(data.name, lines), summary)


def _write(name: str, path: Path, text: str, summary: str) -> str:
    from cli.check import check_case

    valid = check_case(_load(name, text))
    write_shared(path, text)
    return f"{path}: {summary}\n{valid}"


def _table_case(name: str, data: DataFiles, options: TableOptions) -> tuple[list[str], str]:
    """The lines of the case, and a summary: the SQL is tried on the file, and models are compared on its examples."""
    from cli.new_profile import profile_file
    from cli.new_table import write_tabular_case
    from cli.new_trial import choose_model
    from flows.case import TabularCase

    profiled = profile_file(name, data, options)
    plan = profiled.plan
    assert plan is not None
    source = profiled.source()
    case = _load(name, _text(data.name, write_tabular_case(plan, source)))
    assert isinstance(case, TabularCase)
    texts = [feature.name for feature in plan.features if feature.kind == "text"]
    choice = choose_model(case, data.paths, texts, plan.metric)
    plan = plan.without(choice.left_out)
    lines = write_tabular_case(plan, source, choice)
    reasons = [f"  model: {reason}" for reason in choice.reasons]
    return lines, "\n".join([profiled.summary(plan), *reasons])


def _text(origin: str, lines: Sequence[str]) -> str:
    head = f"# Begun by `driftline new` from {one_line(origin)}: a starting point; edit any line."
    return "\n".join([head, *lines, ""])


def _load(name: str, text: str) -> TabularCase | LanguageCase:
    """Read a case before it stands among the others, so that no invalid one is left there."""
    from flows.case import load_case

    with temporary_folder("new") as folder:
        write_text(Path(folder) / name / "case.yaml", text)
        return load_case(name, Path(folder))
