"""SQLAlchemy dialect for Great Expectations on DuckDB: PostgreSQL's dialect, changed where DuckDB differs.

Great Expectations has no engine for DuckDB, and its pandas engine copies a whole frame for every expectation (tens of
seconds at three million rows). It writes SQL for PostgreSQL, which DuckDB understands. The package duckdb-engine has
had no release for DuckDB 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import types
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect, PGIdentifierPreparer

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

URL = "duckdb://"


def engine_arguments(database: DuckDBPyConnection) -> dict[str, Any]:
    """Arguments of `sqlalchemy.create_engine(URL, ...)` that connect it to an open database."""
    from sqlalchemy.pool import StaticPool

    registry.register("duckdb", __name__, "DuckDBDialect")
    return {"creator": lambda: _Connection(database), "poolclass": StaticPool}


class _Compiler(PGCompiler):
    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> str:
        # in PostgreSQL ~ searches, in DuckDB it matches the whole text
        if operator.opstring in ("~", "!~"):
            sides = f"{self.process(element.left, **kw)}, {self.process(element.right, **kw)}"
            return f"{'NOT ' if operator.opstring == '!~' else ''}regexp_matches({sides})"
        inherited: Any = super().visit_custom_op_binary  # sqlalchemy leaves it untyped
        return str(inherited(element, operator, **kw))


class _Preparer(PGIdentifierPreparer):
    def quote(self, ident: str) -> str:
        return self.quote_identifier(ident)  # always: the reserved words differ, and columns may have any name


class ColumnType(types.UserDefinedType[Any]):
    """A column's type as DuckDB names it: BIGINT, VARCHAR, TIMESTAMP WITH TIME ZONE."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class DuckDBDialect(PGDialect):
    """Reads only; tables and views are created with DuckDB itself."""

    driver = "duckdb"
    default_paramstyle = "qmark"
    supports_statement_cache = False
    statement_compiler = _Compiler
    preparer = _Preparer

    @classmethod
    def import_dbapi(cls) -> Any:
        import duckdb

        return duckdb

    def initialize(self, connection: Any) -> None:
        self.default_schema_name = "main"  # PostgreSQL's dialect would query the server's version

    def create_connect_args(self, url: Any) -> tuple[list[Any], dict[str, Any]]:
        return [], {}

    def has_table(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> bool:
        return table_name in self.get_table_names(connection)

    def get_table_names(self, connection: Any, schema: str | None = None, **_: Any) -> list[str]:
        rows = connection.exec_driver_sql("SELECT table_name FROM information_schema.tables ORDER BY ALL")
        return [row[0] for row in rows]

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> list[Any]:
        rows = connection.exec_driver_sql(f"DESCRIBE {self.identifier_preparer.quote(table_name)}")
        return [{"name": row[0], "type": ColumnType(row[1]), "nullable": True, "default": None} for row in rows]

    def get_pk_constraint(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        return {"constrained_columns": [], "name": None}


class _Connection:
    """The connection in SQLAlchemy's pool; closing it leaves the database open."""

    def __init__(self, database: DuckDBPyConnection) -> None:
        self._database = database

    def cursor(self) -> _Cursor:
        return _Cursor(self._database)

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class _Cursor:
    """Stores its rows: Great Expectations fetches them after it returned the connection."""

    rowcount = -1

    def __init__(self, database: DuckDBPyConnection) -> None:
        self._database = database
        self._rows: list[tuple[Any, ...]] = []
        self.description: list[tuple[Any, ...]] | None = None

    def execute(self, statement: str, parameters: Any = None) -> None:
        self._database.execute(statement, list(parameters or ()))
        self.description = self._database.description
        self._rows = self._database.fetchall() if self.description else []

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows))

    def close(self) -> None:
        self._rows = []
