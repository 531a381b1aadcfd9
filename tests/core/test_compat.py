"""Promise: the internals of Prefect and MLflow are there and work as we use them; a failure names the package."""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.core import compat

MLFLOW, PREFECT = f"mlflow {version('mlflow')}", f"prefect {version('prefect')}"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A new database of MLflow."""
    path = tmp_path / "mlflow.db"
    compat.create_mlflow_tables(f"sqlite:///{path}", (tmp_path / "artifacts").as_uri())
    return path


def test_mlflow_creates_its_tables_and_their_revision(database: Path) -> None:
    """Tables and the default experiment; the revision is stored by Alembic. A second call changes nothing."""
    with sqlite3.connect(database) as connection:
        names = connection.execute("SELECT name FROM experiments").fetchall()
    assert names == [("Default",)], f"{MLFLOW}: another default experiment"
    revision = compat.mlflow_revision(database)
    assert revision, f"{MLFLOW}: no revision in alembic_version"
    compat.create_mlflow_tables(f"sqlite:///{database}", "unused")
    assert compat.mlflow_revision(database) == revision


def test_mlflow_upgrades_its_tables_or_refuses(database: Path) -> None:
    """The newest stay as they are; those of a newer MLflow are refused."""
    revision = compat.mlflow_revision(database)
    compat.upgrade_mlflow_tables(f"sqlite:///{database}")
    assert compat.mlflow_revision(database) == revision, f"{MLFLOW}: upgrade changed a new database"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    with pytest.raises(LookupError, match="later"):
        compat.upgrade_mlflow_tables(f"sqlite:///{database}")


def test_mlflow_creates_a_default_experiment_anew(database: Path) -> None:
    """A copy of a database without it gets one with the copy's own artifact root."""
    compat.remove_default_experiment(database)
    compat.create_mlflow_tables(f"sqlite:///{database}", "file:///elsewhere")
    with sqlite3.connect(database) as connection:
        roots = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    assert [root.startswith("file:///elsewhere") for (root,) in roots] == [True], f"{MLFLOW}: {roots}"


def test_prefect_knows_its_flow_run_and_tags() -> None:
    """Outside a flow there is no run; without tags, those of the surrounding block do not apply."""
    from prefect import tags
    from prefect.context import FlowRunContext, TagsContext

    assert not compat.in_flow_run()
    with FlowRunContext.model_construct():
        assert compat.in_flow_run(), f"{PREFECT}: FlowRunContext.get() does not find the context"
    with tags("case"):
        assert TagsContext.get().current_tags == {"case"}, f"{PREFECT}: tags() sets another context"
        with compat.without_run_tags():
            assert TagsContext.get().current_tags == set()
