"""A replay's own world, and what a retraining in it took."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.backtest.sandbox import sandbox_settings, summarise_challenge
from tasks.core.mlflow import get_or_create_experiment, mlflow_client, start_run
from tasks.core.settings import Settings
from tasks.evaluate.results import Criterion, Verdict
from tasks.train.results import Candidate
from tasks.train.training_time import training_seconds


@pytest.fixture
def config(tmp_path) -> Settings:
    """Real settings that name servers and remotes."""
    named = {"tracking_url": "http://mlflow.example:1", "dvc_remote": "s3://bucket", "gateway_store": "postgresql://x"}
    return Settings(state=tmp_path / "state", data=tmp_path / "data", **named)


def test_no_server_or_remote_of_the_real_world_is_used(config):
    """Registry, remote, gateway and predictions all lie in the replay's folder."""
    world = sandbox_settings(config, "case")
    home = str(config.state / "replay" / "case")
    assert world.mlflow_uri.startswith(f"sqlite:///{home}")
    assert world.remote.startswith(home)
    assert str(world.data).startswith(home)
    assert world.gateway_store == world.online_store == ""
    assert world.cases == config.cases


def test_a_world_is_found_again_until_it_is_deleted(config):
    """A second replay goes on in the same folder; after it was deleted, in one of another name, which nothing knows."""
    first = sandbox_settings(config, "case").state
    assert sandbox_settings(config, "case").state == first
    first.rmdir()
    assert sandbox_settings(config, "case").state != first


def test_a_retraining_takes_what_it_took_first(config):
    """Training as the ledger counts it, and the rest as first told: found again, it costs the same."""
    world = sandbox_settings(config, "case")
    client = mlflow_client(world.tracking)
    with start_run(client, get_or_create_experiment(client, world.tracking, "case"), "key", "train", {}) as run_id:
        pass
    trained = candidate(run_id, world.state)
    training = training_seconds(trained, world)
    verdict = Verdict(
        decision="reject",
        criteria=(Criterion(name="auc", observed=0.6, required=">= 0.65", passed=False, note="few rows"),),
        metrics={},
        champion="a" * 64,
        scores=world.state,
        digest="d" * 64,
    )
    first = summarise_challenge(trained, verdict, None, training + 5, 2, world)
    again = summarise_challenge(trained, verdict, None, 0.1, 0.1, world)
    assert first.seconds == again.seconds == pytest.approx(training + 5 + 2, abs=0.01)
    assert first.failed == ("auc is 0.6, required >= 0.65 (few rows)",)
    other = summarise_challenge(trained, verdict.model_copy(update={"champion": "b" * 64}), None, 0.1, 3, world)
    assert other.seconds == pytest.approx(training + 5 + 3, abs=0.01)  # trained once, judged against another champion


def candidate(run_id: str, folder: Path) -> Candidate:
    return Candidate(
        case="case",
        as_of=datetime(2013, 4, 1, tzinfo=UTC),
        run_id=run_id,
        folder=folder,
        weights_digest="w" * 64,
        frame=folder,
        data_digest="d",
        definitions_digest="f",
        columns=(),
        train_rows=1,
        holdout_rows=1,
    )
