"""`driftline new CASE --refresh`: compares the columns of a case with what its sources hold now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.yaml_line import flow
from tasks.core.files import temporary_folder, write_text
from tasks.core.settings import settings


@dataclass(frozen=True)
class Change:
    """A column that the case and the file state differently; None: it is not there."""

    column: str
    stated: Any
    proposed: Any

    def sentence(self) -> str:
        if self.stated is None:
            return f"  + {self.column}: {flow(self.proposed)}, only in the file"
        if self.proposed is None:
            return f"  - {self.column}: {flow(self.stated)}, only in case.yaml"
        return f"  ~ {self.column}: {flow(self.stated)} in case.yaml, {flow(self.proposed)} by all rows of the file"


def refresh_columns(name: str, *, write: bool) -> str:
    """Show the differences, and write them into the case.yaml if `write`; every other line of it stays.

    Raises: CaseError, DataError.
    """
    from cli.check import check_case
    from cli.new_profile import profile_columns
    from flows.case import load_case
    from tasks.data.origins.fetch import fetch_source

    case = load_case(name, settings().cases)
    path = settings().cases / name / "case.yaml"
    text = path.read_text(encoding="utf-8")
    shown = []
    for source_name, source in case.data.sources.items():
        if source.log:
            continue
        stated = {column: _short(kind.type, kind.format) for column, kind in source.columns.items()}
        with temporary_folder("fetched") as folder:
            files = fetch_source(source, case.folder, Path(folder)).paths
            proposed = profile_columns(source, files)
        changes = [*compare_columns(stated, proposed)]
        shown.append(f"{source_name}: " + ("no difference" if not changes else f"{len(changes)} differences"))
        shown += [change.sentence() for change in changes]
        text = edit_columns(text, source_name, changes) if changes else text
    if text == path.read_text(encoding="utf-8"):
        return "\n".join(shown)
    if not write:
        return "\n".join([*shown, f"Nothing is written. To change the columns in {path}: add --write"])
    write_text(path.with_name("case.yaml"), text)
    return "\n".join([*shown, f"{path} is changed.", check_case(load_case(name, settings().cases))])


def _short(kind: str, form: str) -> Any:
    return {"type": kind, "format": form} if form else kind


def compare_columns(stated: Mapping[str, Any], proposed: Mapping[str, Any]) -> Iterator[Change]:
    """The columns that differ, in the order of the file; removed ones come last."""
    for column, kind in proposed.items():
        if stated.get(column) != kind:
            yield Change(column, stated.get(column), kind)
    for column, kind in stated.items():
        if column not in proposed:
            yield Change(column, kind, None)


def edit_columns(text: str, source: str, changes: list[Change]) -> str:
    """The case.yaml with the changes in a source's `columns`, and otherwise letter by letter as it is."""
    node = _child(_child(_child(yaml.compose(text, yaml.SafeLoader), "data"), "sources"), source)
    columns = next((value for key, value in node.value if key.value == "columns"), None)
    if columns is None or not columns.value:
        return _insert_columns(text, node, columns, {c.column: c.proposed for c in changes if c.proposed is not None})
    if columns.flow_style:
        stated = {key.value: yaml.safe_load(yaml.serialize(value)) for key, value in columns.value}
        proposed = {**stated, **{change.column: change.proposed for change in changes}}
        whole = flow({name: kind for name, kind in proposed.items() if kind is not None})
        return text[: columns.start_mark.index] + whole + text[columns.end_mark.index :]
    edits: list[tuple[int, int, str]] = []
    last = columns.value[-1][1].end_mark.index
    indent = "\n" + " " * columns.value[0][0].start_mark.column
    for change in changes:
        found = next(((k, v) for k, v in columns.value if k.value == change.column), None)
        if found is None:
            edits.append((last, last, f"{indent}{flow(change.column)}: {flow(change.proposed)}"))
        elif change.proposed is not None:
            edits.append((found[1].start_mark.index, found[1].end_mark.index, flow(change.proposed)))
        else:
            start = text.rfind("\n", 0, found[0].start_mark.index)
            end = text.find("\n", found[1].end_mark.index)
            edits.append((start, len(text) if end < 0 else end, ""))
    for start, end, new in sorted(edits, key=lambda edit: edit[0], reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _child(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _insert_columns(text: str, source: Any, columns: Any, proposed: Mapping[str, Any]) -> str:
    """Put the columns behind the uri, or in place of empty ones."""
    if columns is not None:
        return text[: columns.start_mark.index] + flow(dict(proposed)) + text[columns.end_mark.index :]
    key, value = next((key, value) for key, value in source.value if key.value == "uri")
    at = value.end_mark.index
    if source.flow_style:
        return f"{text[:at]}, columns: {flow(dict(proposed))}{text[at:]}"
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    indent = " " * key.start_mark.column
    lines = [f"{indent}columns:", *(f"{indent}  {flow(name)}: {flow(kind)}" for name, kind in proposed.items())]
    return text[:end] + "\n" + "\n".join(lines) + text[end:]
