"""Internals of Prefect and MLflow that every stage depends on; tests/core/test_compat.py checks each of them."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path


def create_mlflow_tables(uri: str, artifacts: str) -> None:
    """Create the tables of MLflow, and its default experiment; MLflow creates them when a store is opened."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, artifacts).engine.dispose()


def upgrade_mlflow_tables(uri: str) -> None:
    """Migrate a database of MLflow, as `mlflow db upgrade` does.

    Raises: LookupError when a newer MLflow wrote it.
    """
    from alembic.util import CommandError
    from mlflow.db import upgrade

    try:
        upgrade.main([uri], standalone_mode=False)
    except CommandError as error:
        raise LookupError(str(error)) from error


def mlflow_revision(path: Path) -> str:
    """The revision of the tables in MLflow's SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def remove_default_experiment(path: Path) -> None:
    """Remove the experiment that MLflow created with its tables: it has the artifact root of that moment."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM experiments")


def in_flow_run() -> bool:
    """Whether this code runs in a Prefect flow."""
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def without_run_tags() -> AbstractContextManager[object]:
    """A block whose tasks get no tags: for each tagged task, Prefect requests a concurrency slot from its server."""
    from prefect.context import TagsContext

    return TagsContext(current_tags=set())
