"""Opens a read-only connection to the database of a source, and turns the errors of all drivers into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.core.errors import CaseError, DataError, Unavailable
from tasks.data.origins.address import Address

if TYPE_CHECKING:
    import sqlalchemy as sa

POSTGRES: dict[str, Any] = {  # libpq's: how long to wait for a server that does not answer; times in UTC
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 60_000,  # milliseconds
    "keepalives_idle": 30,  # seconds
    "options": "-c timezone=UTC -c lock_timeout=60s -c statement_timeout=30min",
}


@contextmanager
def open_connection(address: Address, folder: Path) -> Iterator[sa.Connection]:
    """A connection in one transaction that sees one moment of the database, and can't write.

    A relative path of SQLite starts at `folder`. Raises: CaseError, DataError, Unavailable.
    """
    import sqlalchemy as sa

    engine = _create_engine(address, folder)
    reached = False
    try:
        with engine.connect() as connection:
            reached = True
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            elif engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # Python's module begins none for a SELECT
            yield connection
    except sa.exc.DBAPIError as error:
        text = address.hide_secrets(" ".join(str(error.orig).split()))[:300]
        if not reached or _is_lost(error):
            raise Unavailable(
                "The database of a source does not answer, or refuses the connection; nothing was changed.",
                where=address.uri,
                found=text,
                todo="Start again when it is back, or correct the uri and its variables.",
            ) from error
        raise DataError(
            "The query of a source failed.",
            where=address.uri,
            found=text,
            todo="Correct the source's query in case.yaml.",
        ) from error
    finally:
        engine.dispose()


def _is_lost(error: sa.exc.DBAPIError) -> bool:
    """Whether the server is the cause, and not the query. SQLite calls a wrong query an operational error, too."""
    import sqlite3

    import sqlalchemy as sa

    if isinstance(error.orig, sqlite3.Error):
        return "locked" in str(error.orig)
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


def _create_engine(address: Address, folder: Path) -> sa.Engine:
    """Raises: CaseError, DataError."""
    import sqlalchemy as sa

    uri = address.resolve()
    try:
        url = sa.make_url(uri.replace("postgres://", "postgresql://", 1))
        return _engine_of(url, folder)
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:  # NoSuchModuleError is an ArgumentError
        raise CaseError(
            "The address of a source's database can't be used.",
            where=address.uri,
            found=address.hide_secrets(str(error).splitlines()[0]),
            allowed="a URL of SQLAlchemy whose driver is installed, such as postgresql://$USER:$PASSWORD@host/database",
            todo="Correct the uri in case.yaml, or install the driver.",
        ) from error


def _engine_of(url: sa.URL, folder: Path) -> sa.Engine:
    import sqlalchemy as sa

    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")  # the driver that is installed
    if url.get_backend_name() == "sqlite":
        path = folder / (url.database or "")
        if not path.is_file():
            raise DataError("A source's database is missing.", where=str(path))
        url = url.set(database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})
    arguments: dict[str, Any] = {}
    if url.drivername == "postgresql+psycopg":
        arguments = {name: value for name, value in POSTGRES.items() if name not in url.query}
    engine = sa.create_engine(url, connect_args=arguments, poolclass=sa.NullPool, hide_parameters=True)
    if url.drivername == "postgresql+psycopg":
        sa.event.listen(engine, "connect", _read_json_as_text)
    return engine


def _read_json_as_text(connection: Any, _: object) -> None:
    from psycopg.types.json import set_json_loads

    set_json_loads(lambda data: data if isinstance(data, str) else bytes(data).decode(), connection)
