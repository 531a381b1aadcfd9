"""Writes a configuration into the text of a case.yaml, and leaves every other line as it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tasks.core.errors import CaseError
from tasks.core.yaml_file import load_yaml

KEY = re.compile(r"^( *)([\w-]+):")


def changed_text(text: str, change: Mapping[str, Mapping[str, Any] | None], owned: Mapping[str, Sequence[str]]) -> str:
    """The text with the keys of each section replaced; those in `owned` that the change lacks are removed.

    A section whose change is None goes as a whole.

    Raises: CaseError when the file is written in a form that can't be changed line by line.
    """
    values = load_yaml(text)
    lines = text.splitlines()
    for section, new in change.items():
        if new is None:
            values = {name: each for name, each in values.items() if name != section}
            lines = _without(lines, section)
            continue
        own = [*owned.get(section, ()), *new]
        now = values.get(section)
        if isinstance(now, str):  # the name of a file, whose content the change has
            lines, now = _without(lines, section), None
        others = {k: v for k, v in (now or {}).items() if k not in own}
        values = {**values, section: {**new, **others}}
        lines = _replaced(lines, section, new, own)
    changed = "\n".join(lines) + "\n"
    if _read(changed) != values:
        raise CaseError(
            "case.yaml is written in a form that can't be changed line by line.",
            where=", ".join(change),
            found="a section on one line, or with anchors",
            todo="Write each key of the section on a line of its own, or copy the configuration of the report by hand.",
        )
    return changed


def _read(text: str) -> Any:
    try:
        return load_yaml(text)
    except ValueError:
        return None


def _without(lines: list[str], section: str) -> list[str]:
    start = next((k for k, line in enumerate(lines) if line.startswith(f"{section}:")), None)
    return lines if start is None else [*lines[:start], *lines[_end(lines, start) :]]


def _end(lines: list[str], start: int) -> int:
    """The line after a section; blank lines and comments before the next section are that one's."""
    end = next((k for k in range(start + 1, len(lines)) if lines[k][:1] not in ("", " ", "#")), len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _replaced(lines: list[str], section: str, new: Mapping[str, Any], own: Sequence[str]) -> list[str]:
    start = next((k for k, line in enumerate(lines) if line.startswith(f"{section}:")), None)
    if start is None:
        return [*lines, "", f"{section}:", *_written(new)]
    end = _end(lines, start)
    body = lines[start + 1 : end]
    indents = [len(match[1]) for line in body if (match := KEY.match(line))]
    indent = min(indents, default=2)
    remaining: list[str] = []
    pending: list[str] = []  # comments, which go with the key after them
    dropped = False
    for line in body:
        match = KEY.match(line)
        if match and len(match[1]) == indent:
            dropped = match[2] in own
            remaining += [] if dropped else pending
            pending = []
        if line.strip().startswith("#") and len(line) - len(line.lstrip()) <= indent:
            pending.append(line)
        elif not dropped:
            remaining.append(line)
    return [*lines[: start + 1], *_written(new, indent), *remaining, *pending, *lines[end:]]


def _written(new: Mapping[str, Any], indent: int = 2) -> list[str]:
    """Each key on a line; a list of mappings, and a mapping of mappings, an entry a line."""
    blank = " " * indent
    lines = []
    for key, value in new.items():
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            lines += [f"{blank}{key}:", *(f"{blank}  - {_flow(each)}" for each in value)]
        elif isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()):
            lines += [f"{blank}{key}:", *(f"{blank}  {name}: {_flow(each)}" for name, each in value.items())]
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{blank}{key}: |-", *(f"{blank}  {line}" for line in value.splitlines())]
        else:
            lines.append(f"{blank}{key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    """On one line."""
    text = yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False)
    return str(text).strip()[1:-1]
