"""The columns of a case's tables, read from its SQL without running it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.core.code_digest import cache_key
from tasks.core.config import Result
from tasks.core.errors import CaseError
from tasks.data.results import Snapshot
from tasks.features.config import Features, check_free
from tasks.features.sql import open_snapshot, sql_errors

if TYPE_CHECKING:
    import duckdb

BUILDER = "tasks.features.tables"  # writes the files

Kind = Literal["number", "text", "time", "other"]


class Table(Result):
    """One table as its SQL gives it."""

    name: str
    where: str  # its key in case.yaml, for error messages
    sql: str
    columns: dict[str, Kind]
    whole_numbers: tuple[str, ...]  # the number columns without fractions

    keys: tuple[str, ...] = ()  # join keys, of a view
    ttl: timedelta = timedelta(0)

    @property
    def features(self) -> tuple[str, ...]:
        """A view's columns besides its keys and times."""
        return tuple(c for c in self.columns if c not in {*self.keys, "event_timestamp", "created_timestamp"})


class Tables(Result):
    """All tables of a case's features over one snapshot; their files are FOLDER/NAME.parquet."""

    folder: Path
    examples: Table
    views: tuple[Table, ...]

    def path(self, table: Table) -> Path:
        return self.folder / f"{table.name}.parquet"

    @property
    def join_keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for view in self.views for key in view.keys))


def describe_tables(features: Features, snapshot: Snapshot, state: Path) -> Tables:
    """The columns of each table and their kinds, read from the SQL without running it.

    Raises: CaseError for invalid SQL, for a missing column, and for a column of an unsupported kind.
    """
    key = cache_key(BUILDER, [features.digest, snapshot.digest])
    with open_snapshot(snapshot) as connection:
        examples = _describe(connection, "examples", "features.examples", features.examples)
        views = []
        for name, view in features.views.items():
            table = _describe(connection, name, f"features.views.{name}.sql", view.sql)
            views.append(table.model_copy(update={"keys": view.entities, "ttl": view.ttl}))
    tables = Tables(folder=state / "features" / snapshot.case / key[:16], examples=examples, views=tuple(views))
    _check_examples(tables, features)
    for table in tables.views:
        _check_view(table, examples)
    return tables


def _describe(connection: duckdb.DuckDBPyConnection, name: str, where: str, sql: str) -> Table:
    with sql_errors(where):
        columns = connection.execute(f"DESCRIBE FROM (\n{_query(sql)}\n)").fetchall()
    return Table(
        name=name,
        where=where,
        sql=_query(sql),
        columns={row[0]: _kind(row[1]) for row in columns},
        whole_numbers=tuple(row[0] for row in columns if re.fullmatch(r"\w*INT(EGER)?", row[1])),
    )


def _kind(duckdb_type: str) -> Kind:
    if re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DECIMAL\(.*\)|FLOAT|DOUBLE|BOOLEAN", duckdb_type):
        return "number"
    if re.fullmatch(r"VARCHAR|ENUM\(.*\)", duckdb_type):
        return "text"
    return "time" if re.fullmatch(r"TIMESTAMP\w*( WITH TIME ZONE)?|DATE", duckdb_type) else "other"


def _query(sql: str) -> str:
    return sql.strip().rstrip(";")


def _check_examples(tables: Tables, features: Features) -> None:
    examples = tables.examples
    _check_columns(examples, ("example_id", "event_timestamp", *tables.join_keys, *features.request))
    _check_kinds(examples, features.request)


def _check_view(view: Table, examples: Table) -> None:
    _check_columns(view, (*view.keys, "event_timestamp"))
    _check_kinds(view, view.features)
    for key in view.keys:
        view_kind, examples_kind = (_key_kind(table, key) for table in (view, examples))
        if view_kind != examples_kind or "other" in view_kind:
            raise CaseError(
                f"The join key {key} has another type in the view {view.name} than in the examples.",
                where=view.where,
                found=f"{view_kind} in the view, {examples_kind} in the examples",
                allowed="text in both, or a whole number in both",
                todo=f"Cast it: {key}::VARCHAR or {key}::BIGINT.",
            )
    try:
        check_free(view.features)
    except ValueError as error:
        raise CaseError(
            f"The view {view.name} has a name that is taken.",
            where=view.where,
            found=str(error),
            todo="Rename the column in the query.",
        ) from error
    if not view.features:
        raise CaseError(
            f"The view {view.name} has no feature.",
            where=view.where,
            found=f"columns {', '.join(view.columns)}",
            allowed="at least one column besides the entities, event_timestamp and created_timestamp",
            todo="Add a column to the query, or remove the view.",
        )


def _key_kind(table: Table, key: str) -> str:
    kind = table.columns[key]
    return kind if kind == "text" else "whole number" if key in table.whole_numbers else f"{kind} (other)"


def _check_columns(table: Table, required: tuple[str, ...]) -> None:
    reserved = [column for column in table.columns if re.fullmatch(r"(?i)rowid|asof_.*", column)]
    if reserved:
        raise CaseError(
            f"The SQL of {table.name} uses reserved names of the offline store: {', '.join(reserved)}.",
            where=table.where,
            found=", ".join(reserved),
            allowed="any name except rowid and names that begin with asof_",
            todo="Rename the column in the query.",
        )
    missing = [column for column in dict.fromkeys(required) if column not in table.columns]
    if missing:
        raise CaseError(
            f"The SQL of {table.name} lacks {', '.join(missing)}.",
            where=table.where,
            found=f"columns {', '.join(table.columns)}",
            allowed=f"at least {', '.join(dict.fromkeys(required))}",
            todo="Add the column to the query, or correct its name in case.yaml.",
        )
    for column in ("event_timestamp", "created_timestamp"):
        if table.columns.get(column, "time") != "time":
            raise CaseError(
                f"{column} of {table.name} is not a time.",
                where=table.where,
                found=table.columns[column],
                allowed="TIMESTAMP, TIMESTAMPTZ or DATE; without a time zone it is read as UTC",
                todo="Cast it in the query.",
            )


def _check_kinds(table: Table, columns: tuple[str, ...]) -> None:
    wrong = [column for column in columns if table.columns[column] not in ("number", "text")]
    if wrong:
        raise CaseError(
            f"Features of {table.name} are neither numbers nor text: {', '.join(wrong)}.",
            where=table.where,
            found=", ".join(f"{column} is {table.columns[column]}" for column in wrong),
            allowed="numbers, booleans and text",
            todo="Convert the column, for example with hour(column) or column::VARCHAR.",
        )
