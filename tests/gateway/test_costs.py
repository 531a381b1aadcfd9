"""What was spent, and for what: training beside calls, and what an accepted answer costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.call import Call
from services.gateway.usage_writer import UsageWriter
from services.rollout.routing import Route, Share
from services.store.costs import summarize_costs
from services.store.database import DONE, Store
from services.store.feedback import Feedback, store_feedback
from services.store.keys import LOCAL_KEY
from services.store.training import record_training
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.settings import Settings
from tasks.release.config import Price
from tasks.train.candidates import ENERGY_METRIC
from tasks.train.results import Candidate

pytestmark = pytest.mark.xdist_group("gateway")  # where the candidate is trained already


@pytest.fixture
def mine(tmp_path: Path, tracking: Tracking) -> Iterator[tuple[Settings, Store]]:
    settings = Settings(state=tmp_path, tracking_url=tracking.uri)
    store = Store(settings)
    yield settings, store
    store.close()


def test_a_training_is_recorded_once(mine, candidate: Candidate, tracking: Tracking) -> None:
    """Its seconds are its MLflow run's, at the price of an hour; it is no call."""
    settings, store = mine
    for _ in range(2):
        record_training(candidate, 3.6, settings)
    info = mlflow_client(tracking).get_run(candidate.run_id).info
    seconds = (info.end_time - info.start_time) / 1000
    for by in ("case", "day"):
        (row,) = summarize_costs(store, by)
        assert row["spent"] == row["training"] == pytest.approx(seconds * 0.001)
        assert row["engine_seconds"] == pytest.approx(seconds)
        assert (row["calls"], row["judged"], row["per_accepted"]) == (0, 0, None)
    assert summarize_costs(store, "team")[0]["team"] == "training"
    assert summarize_costs(store, "case")[0]["energy_wh"] is None
    # what a tuning counted over all its processes is more than the last one's; the GPU tells each stage's energy
    client = mlflow_client(tracking)
    client.log_metric(candidate.run_id, "minutes", 10)
    for watt_hours in (1.5, 2.25):
        stage = client.create_run(info.experiment_id, tags={"mlflow.parentRunId": candidate.run_id}).info.run_id
        client.log_metric(stage, ENERGY_METRIC, watt_hours)
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM usage_records")
    record_training(candidate, 3.6, settings)
    (row,) = summarize_costs(store, "case")
    assert row["training"] == pytest.approx(0.6)
    assert row["energy_wh"] == 3.75


def test_an_accepted_answer_has_its_price(mine) -> None:
    """Thumbs, scores and labels count, the latest for each row; calls without feedback do not."""
    _, store = mine
    share = Share(Route("d" * 64, "small", "tabular", (), Price(machine_hour=3.6)), "champion")
    words: list[Any] = [
        [{"thumbs": "down"}, {"thumbs": "up"}],
        [{"score": 0.4}],
        [{"label": 1}],
        [{"label": "0", "example_id": "a"}],
        [{"label": "late"}],
        [{"corrected": "no"}, {"label": True}],
        [],
    ]
    named: list[Any] = [[{"label": "Yes"}], [{"label": "No"}], [{"label": True}]]

    async def calls() -> None:
        writer = UsageWriter(store, "w")
        for prediction, feedback in [*((1, each) for each in words), *(("Yes", each) for each in named)]:
            call = Call("predict", LOCAL_KEY, share, engine_seconds=1.0, classes={"a": prediction})
            await writer.open(call)
            call.finish(DONE, 200)
            await writer.settle(call)
            for word in feedback:
                store_feedback(store, LOCAL_KEY, call.id, Feedback.model_validate(word))
        writer.close()

    asyncio.run(calls())
    for by in ("case", "release", "day", "team"):
        (row,) = summarize_costs(store, by)
        assert (row["calls"], row["judged"], row["accepted"]) == (10, 8, 4)
        assert row["per_accepted"] == pytest.approx(8 * 0.001 / 4)
