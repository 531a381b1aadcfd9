"""MLflow clients, runs that always end, batched logging, and the local tracking database."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.core.compat import (
    create_mlflow_tables,
    mlflow_revision,
    remove_default_experiment,
    upgrade_mlflow_tables,
)
from tasks.core.errors import Unavailable
from tasks.core.files import atomic_path, lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "driftline.key"  # tag with the cache key of a run, by which a killed run is found


@dataclass(frozen=True)
class Tracking:
    """The tracking URI and the artifact root of MLflow."""

    uri: str
    artifacts: str

    @classmethod
    def in_folder(cls, state: Path) -> Tracking:
        """SQLite and an artifact folder within the state folder."""
        return cls(f"sqlite:///{state / 'mlflow.db'}", (state / "mlflow").absolute().as_uri())


@cache
def mlflow_client(tracking: Tracking) -> MlflowClient:
    """The client for these URIs; it sets no global state.

    Raises: Unavailable when the store does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils"):  # a new database announces each migration
        logging.getLogger(name).setLevel(logging.WARNING)
    with mlflow_errors(tracking.uri):
        if tracking.uri.startswith(("http://", "https://")):
            _check_reachable(tracking.uri)
        if tracking.uri.startswith("sqlite:///"):
            _create_database(Path(tracking.uri.removeprefix("sqlite:///")), tracking.artifacts)
        client = mlflow.MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
        client.search_experiments(max_results=1)
    return client


def _check_reachable(uri: str) -> None:
    """Connect once: MLflow itself would retry for minutes."""
    from mlflow.exceptions import MlflowException

    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 5).close()
    except OSError as error:
        raise MlflowException(f"no server listens there: {error.strerror or error}") from error


def _create_database(path: Path, artifacts: str) -> None:
    """Create the database atomically, one process at a time: MLflow can't resume half-done migrations.

    A write-ahead log lets a writer and readers (the server) work without waiting for each other.
    """
    with lock(path.with_name(f".{path.name}.lock"), "MLflow's database", wait=True):
        if path.exists():
            _upgrade(path)
            return
        with atomic_path(path) as temporary:
            if template := template_database():
                shutil.copyfile(template, temporary)
            create_mlflow_tables(f"sqlite:///{temporary}", artifacts)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def _upgrade(path: Path) -> None:
    """Upgrade the database of an earlier MLflow, with a backup beside it.

    MLflow's own migrations are not transactional. Raises: Unavailable when a newer MLflow wrote it.
    """
    template = template_database()
    if template is None or (revision := mlflow_revision(path)) == mlflow_revision(template):
        return
    with (
        atomic_path(path.with_name(f"mlflow-{revision}.db")) as backup_path,
        closing(sqlite3.connect(path)) as connection,
        closing(sqlite3.connect(backup_path)) as target,
    ):
        connection.backup(target)
    try:
        upgrade_mlflow_tables(f"sqlite:///{path}")
    except LookupError as error:
        raise Unavailable(
            "MLflow's database was written by a newer MLflow.",
            where=str(path),
            found=f"revision {revision}",
            allowed=f"up to that of MLflow {version('mlflow')}",
            todo="Go back to the version of Driftline that wrote it, or restore a backup: docs/guides/operations.md.",
        ) from error


def template_database(path: Path | None = None) -> Path | None:
    """Create the migrated, empty database that new ones are copied from, unless it exists.

    It lies beside the installed packages: MLflow's migrations take 2 s for each new state folder.
    None when that folder can't be written.
    """
    path = path or Path(sys.prefix) / "share" / "driftline" / f"mlflow-{version('mlflow')}.db"
    if path.is_file():
        return path
    try:
        with lock(path.with_suffix(".lock"), "MLflow's template", wait=True):
            if not path.is_file():
                with atomic_path(path) as temporary:
                    create_mlflow_tables(f"sqlite:///{temporary}", "unused")
                    remove_default_experiment(temporary)
    except OSError:
        return None
    return path


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow and its database into Unavailable."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        raise Unavailable(
            "MLflow does not answer, or can't store the data.",
            where=uri.split("@")[-1],  # an address may carry a password
            found=str(error).split("\n")[0],
            todo="Check that its server runs and its disk has space, or correct DRIFTLINE_TRACKING_URL.",
        ) from error


def get_or_create_experiment(client: MlflowClient, tracking: Tracking, name: str) -> str:
    """The id of an experiment, created if it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=f"{tracking.artifacts}/{name}")
        except MlflowException:  # another process created it first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


@contextmanager
def start_run(client: MlflowClient, experiment_id: str, key: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Yield the id of a new run; it ends FINISHED, or FAILED or KILLED when the block raises.

    Earlier RUNNING runs with this key, of killed processes, end as KILLED first. Raises: Unavailable.
    """
    with mlflow_errors(client.tracking_uri):
        for orphan in unfinished_runs(client, experiment_id, key):
            client.set_terminated(orphan, "KILLED")
        created = client.create_run(experiment_id, run_name=name, tags={KEY_TAG: key, **tags})
    run_id = created.info.run_id
    try:
        with mlflow_errors(client.tracking_uri):
            yield run_id
    except BaseException as error:
        with suppress(Unavailable), mlflow_errors(client.tracking_uri):  # the first error is the one to raise
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    with mlflow_errors(client.tracking_uri):
        client.set_terminated(run_id, "FINISHED")


def unfinished_runs(client: MlflowClient, experiment_id: str, key: str) -> list[str]:
    """Ids of the RUNNING runs with this key."""
    runs = client.search_runs([experiment_id], f"attributes.status = 'RUNNING' and tags.`{KEY_TAG}` = '{key}'")
    return [run.info.run_id for run in runs]


def run_status(client: MlflowClient, run_id: str) -> str | None:
    """A run's status, or None when the run does not exist or is deleted.

    Raises: Unavailable when MLflow can't answer.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_errors(client.tracking_uri):
        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    return None if found.info.lifecycle_stage == "deleted" else found.info.status


def log_batch(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    timestamp_ms: int | None = None,
) -> None:
    """Log any number of values in as few requests as MLflow allows.

    Metrics logged twice with the same timestamp leave one point, not two.
    """
    from mlflow.entities import Metric, Param, RunTag

    moment = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    all_metrics = [Metric(name, float(value), moment, 0) for name, value in (metrics or {}).items()]
    all_params = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
    all_tags = [RunTag(name, str(value)[:5000]) for name, value in (tags or {}).items()]
    while all_metrics or all_params or all_tags:
        client.log_batch(run_id, metrics=all_metrics[:800], params=all_params[:100], tags=all_tags[:100])
        all_metrics, all_params, all_tags = all_metrics[800:], all_params[100:], all_tags[100:]
