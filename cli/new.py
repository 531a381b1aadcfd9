"""`driftline new`: a case begun from a file, with every line there to be changed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.core.errors import InputError
from tasks.core.permissions import write_shared
from tasks.core.settings import settings


def new(name: str, file: Path, target: str | None, key: Sequence[str], time: str | None) -> str:
    """Write the case.yaml of a table, or without a target of a language model; say what it is, and that it is valid.

    Raises: InputError, DataError.
    """
    from cli import new_language, new_table
    from cli.check import check

    path = settings().cases / name / "case.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise InputError("That can't be a case's name.", where="CASE", found=name, allowed="a-z, 0-9, _ and -")
    if path.exists():
        raise InputError(
            "There is a case of that name.", where=str(path), todo="Change that file, or take another name."
        )
    if target is None and file.suffix != ".jsonl":
        raise InputError(
            "Which column is to be predicted?",
            where="--target",
            found=f"none, and {file.name} is no .jsonl file of messages and answers",
            todo=f"driftline new {name} {file} --target COLUMN",
        )
    own, there = path.parent.resolve(), file.resolve()
    near = there.is_relative_to(own.parents[1])  # of one repository, which may be cloned elsewhere
    source = f"file://{os.path.relpath(there, own) if near else there}"
    if target is None:
        lines, said = new_language.write_language_case(file, source)
    else:
        lines, said = new_table.write_tabular_case(file, source, target, key, time)
    head = f"# Begun by `driftline new` from {file.name}: a start, and every line yours to change."
    write_shared(path, "\n".join([head, *lines, ""]))
    return f"{path}: {said}\n{check(name)}"


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False)
    return text.strip()[1:-1]
