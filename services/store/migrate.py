"""The store's schema, brought up to the revision that this code knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from tasks.core.errors import Unavailable

# the newest revision; Alembic, whose import takes 0.3 s, is imported only for a store with another one
HEAD = "audit_chain"
VERSION_TABLE = "driftline_version"
ADVISORY_LOCK = 8_400_840_084  # number of an advisory lock of PostgreSQL


def migrate(engine: Engine) -> None:
    """Create or upgrade the tables as needed; when several processes start, one does it and the others wait.

    Raises: Unavailable when a newer version of Driftline wrote the store.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if _revision(connection) == HEAD:
            return
    with engine.begin() as connection:  # SQLite: it holds the only write lock from its beginning
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    """Apply the revisions that are missing, all in one transaction."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    folder = str(Path(__file__).with_name("migrations"))
    scripts = ScriptDirectory(folder, version_locations=[folder])
    revisions = list(reversed(list(scripts.walk_revisions())))
    names = [revision.revision for revision in revisions]
    found = _revision(connection)
    if found is not None and found not in names:
        raise Unavailable(
            "The gateway's database was written by a newer Driftline.",
            where=connection.engine.url.render_as_string(),
            found=f"revision {found}",
            allowed=f"up to revision {HEAD}",
            todo="Go back to the version of Driftline that wrote it, or restore a backup: docs/guides/operations.md.",
        )
    options = {"version_table": VERSION_TABLE, "transactional_ddl": True}
    context = MigrationContext.configure(connection, opts=options)
    with Operations.context(context):
        for revision in revisions[names.index(found) + 1 if found else 0 :]:
            revision.module.upgrade()
            context.stamp(scripts, revision.revision)


def _revision(connection: Connection) -> str | None:
    """The revision of a store; None for an empty store, and for one older than the revisions."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
