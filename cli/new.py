"""`driftline new`: create a case from a data file."""

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
    """Write and validate a case.yaml: of a table, or without a target of a language case.

    Raises: InputError, DataError.
    """
    from cli import new_language, new_table
    from cli.check import check

    path = settings().cases / name / "case.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise InputError("The case name is not valid.", where="CASE", found=name, allowed="a-z, 0-9, _ and -")
    if path.exists():
        raise InputError("A case of that name exists.", where=str(path), todo="Edit that file, or choose another name.")
    if target is None and file.suffix != ".jsonl":
        raise InputError(
            "The target column is missing.",
            where="--target",
            found=f"no target, and {file.name} is not a .jsonl file of messages and answers",
            todo=f"driftline new {name} {file} --target COLUMN",
        )
    folder, target_file = path.parent.resolve(), file.resolve()
    near = target_file.is_relative_to(folder.parents[1])  # a relative path also works in a clone
    source = f"file://{os.path.relpath(target_file, folder) if near else target_file}"
    if target is None:
        lines, summary = new_language.write_language_case(file, source)
    else:
        lines, summary = new_table.write_tabular_case(file, source, target, key, time)
    head = f"# Begun by `driftline new` from {file.name}: a starting point; edit any line."
    write_shared(path, "\n".join([head, *lines, ""]))
    return f"{path}: {summary}\n{check(name)}"


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False)
    return text.strip()[1:-1]
