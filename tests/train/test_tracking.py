from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core.errors import CaseError, Unavailable
from tasks.core.mlflow import (
    Tracking,
    get_or_create_experiment,
    log_batch,
    mlflow_client,
    mlflow_errors,
    run_status,
    start_run,
)


def test_two_first_uses_at_once_make_one_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither breaks the other, nothing is announced, nothing half-made lies about; a write-ahead log is on."""
    place = Tracking.in_folder(tmp_path / "new")
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(2) as both:
        places = [place, place]
        ids = list(both.map(lambda p: get_or_create_experiment(mlflow_client.__wrapped__(p), p, "case"), places))
    assert ids[0] == ids[1]
    assert not caplog.records
    assert {path.name for path in (tmp_path / "new").iterdir()} <= {
        "mlflow.db",
        "mlflow.db-wal",
        "mlflow.db-shm",
        ".mlflow.db.lock",
    }
    with sqlite3.connect(tmp_path / "new" / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_earlier_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """One of the MLflow before: its runs are there, new ones are taken, and a copy lies beside it as it was."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    path = tmp_path / "mlflow.db"
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    scripts = ScriptDirectory.from_config(config)
    earlier = scripts.get_revision(scripts.get_revision("heads").down_revision).down_revision
    command.upgrade(config, earlier)
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO experiments (name, lifecycle_stage) VALUES ('older', 'active')")
    place = Tracking.in_folder(tmp_path)
    client = mlflow_client.__wrapped__(place)
    assert client.get_experiment_by_name("older") is not None
    with start_run(client, get_or_create_experiment(client, place, "newer"), "k", "goes", {}) as goes:
        pass
    assert run_status(client, goes) == "FINISHED"
    with sqlite3.connect(tmp_path / f"mlflow-{earlier}.db") as backup:
        assert backup.execute("SELECT version_num FROM alembic_version").fetchone() == (earlier,)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """One of a later MLflow is data, and left as it was."""
    place = Tracking.in_folder(tmp_path)
    mlflow_client.__wrapped__(place)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    with pytest.raises(Unavailable, match=r"newer MLflow(.|\n)*later"):
        mlflow_client.__wrapped__(place)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("later",)


def test_a_run_ends_however_its_block_ends(state: Path) -> None:
    """FINISHED, FAILED after an error, KILLED when interrupted; and what went wrong is what the caller sees."""
    place = Tracking.in_folder(state)
    client = mlflow_client(place)
    where = get_or_create_experiment(client, place, "ends")
    with start_run(client, where, "k1", "well", {}) as well:
        assert run_status(client, well) == "RUNNING"
    with pytest.raises(CaseError), start_run(client, where, "k2", "badly", {}) as badly:
        raise CaseError("no")
    with pytest.raises(KeyboardInterrupt), start_run(client, where, "k3", "stopped", {}) as stopped:
        raise KeyboardInterrupt
    with pytest.raises(Unavailable, match="can't store"), start_run(client, where, "k4", "refused", {}) as refused:
        log_batch(client, "0" * 32, metrics={"a": 1})
    statuses = [run_status(client, run_id) for run_id in (well, badly, stopped, refused, "0" * 32)]
    assert statuses == ["FINISHED", "FAILED", "KILLED", "FAILED", None]


def test_any_number_of_values_is_logged_and_a_moment_has_one_point(state: Path) -> None:
    """More than MLflow takes at once; logged again at the same moment, a metric does not double."""
    place = Tracking.in_folder(state)
    client = mlflow_client(place)
    with start_run(client, get_or_create_experiment(client, place, "values"), "many", "many", {}) as run_id:
        for _ in range(2):
            log_batch(
                client,
                run_id,
                metrics={f"m{i}": i for i in range(900)},
                params={f"p{i}": i for i in range(150)},
                timestamp_ms=1000,
            )
    data = client.get_run(run_id).data
    assert (len(data.metrics), len(data.params)) == (900, 150)
    assert len(client.get_metric_history(run_id, "m7")) == 1


def test_a_silent_server_is_reported_in_seconds() -> None:
    """Which address, without a password in it, and what to do."""
    with pytest.raises(Unavailable) as caught:
        mlflow_client(Tracking("http://user:secret@127.0.0.1:9", "unused"))
    assert caught.value.where == "127.0.0.1:9"
    assert "DRIFTLINE_TRACKING_URL" in caught.value.todo
    with pytest.raises(Unavailable, match="locked"), mlflow_errors("sqlite:///x"):
        raise sqlite3.OperationalError("database is locked")
