"""Statements that are compiled once: SQLAlchemy's work on each execution costs more than the statement itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Connection, CursorResult, Delete, Dialect, Insert, Select, Update

Statement = Insert | Update | Delete | Select[Any]


@dataclass(frozen=True)
class _Compiled:
    text: str
    order: tuple[str, ...] | None  # of positional parameters; None: they go by name
    constants: Mapping[str, Any]  # parameters of literals in the statement
    documents: Mapping[str, bool]  # parameters of JSON columns, and whether None is NULL in them

    def parameters(self, row: Mapping[str, Any]) -> Any:
        values = {**self.constants, **row}
        for name, none_as_null in self.documents.items():
            values[name] = None if none_as_null and values[name] is None else json.dumps(values[name])
        return values if self.order is None else tuple(values[name] for name in self.order)


def execute_prepared(connection: Connection, statement: Statement, *rows: Mapping[str, Any]) -> CursorResult[Any]:
    """Execute a statement with the parameters of each row, by name; all rows have the same names.

    `statement` must be the same object each time. JSON columns are serialised; results are the driver's own values.
    """
    names = tuple(rows[0]) if isinstance(statement, Insert) and rows else ()
    compiled = _compile(statement, connection.dialect, names)
    parameters = [compiled.parameters(row) for row in rows or ({},)]
    return connection.exec_driver_sql(compiled.text, parameters if len(parameters) > 1 else parameters[0])


@lru_cache(256)
def _compile(statement: Statement, dialect: Dialect, names: tuple[str, ...]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(names) or None)
    return _Compiled(
        text=str(compiled),
        order=tuple(compiled.positiontup) if compiled.positional else None,
        constants={name: bind.value for name, bind in compiled.binds.items() if not bind.required},
        documents={
            name: bind.type.none_as_null for name, bind in compiled.binds.items() if isinstance(bind.type, JSON)
        },
    )
