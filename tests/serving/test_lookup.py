"""Features that a request leaves out come from the online store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.sockets import http_client
from tasks.data.results import Snapshot
from tasks.features.config import Features, View
from tasks.features.online import materialise

pytestmark = pytest.mark.xdist_group("bento")

MOMENT = datetime(2013, 3, 31, 12, tzinfo=UTC)
UA = {"carrier_late": 0.75, "carrier_flights": 120.0}
EWR = {"wind": 31.5}


@pytest.fixture(scope="module")
def client(
    state: Path, bento: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("lookup")
    hour = pd.Timestamp(MOMENT) - pd.Timedelta(hours=1)
    tables = {
        "days": pd.DataFrame([{"carrier": "UA", "hour": hour, **UA}]),
        "winds": pd.DataFrame([{"origin": "EWR", "hour": hour, **EWR}]),
    }
    for name, table in tables.items():
        (folder / "snapshot" / name).mkdir(parents=True)
        table.to_parquet(folder / "snapshot" / name / "all.parquet", index=False)
    features = Features(
        examples="SELECT 'x' AS example_id, hour AS event_timestamp, carrier, 'EWR' AS origin, 1 AS late FROM days",
        request=("carrier",),
        views={
            "carrier_day": View(
                entities=("carrier",),
                sql="SELECT * EXCLUDE hour, hour AS event_timestamp FROM days",
                ttl=timedelta(days=3),
            ),
            "weather": View(
                entities=("origin",),
                sql="SELECT * EXCLUDE hour, hour AS event_timestamp FROM winds",
                ttl=timedelta(hours=6),
            ),
        },
    )
    snapshot = Snapshot(
        case="small",
        as_of=MOMENT,
        digest="abc.dir",
        path=folder / "snapshot",
        rows={"days": 1, "winds": 1},
        quarantined={},
        docs={},
    )
    repository = materialise(features, snapshot, folder / "state")
    variables = {"DRIFTLINE_ONLINE_REPO": str(repository), "DRIFTLINE_ONLINE_MOMENT": MOMENT.isoformat()}
    with (
        serve_bento(bento_folder(state / "bentoml", bento), {**environment, **variables}, folder / "log") as address,
        http_client(address) as client,
    ):
        yield client


def _predict(client: httpx.Client, *rows: dict[str, Any]) -> list[float]:
    answer = client.post("/predict", json={"rows": rows})
    assert answer.is_success, answer.text
    return [prediction["score"] for prediction in answer.json()["predictions"]]


def test_left_out_features_are_looked_up(client: httpx.Client) -> None:
    """Whether a client brings a view's features or they are looked up, the answer is the same, row by row."""
    request = {"carrier": "UA", "distance": 700, "tail_age": None}
    full = {**request, **UA, **EWR}
    other = {**full, "wind": 1.0, "carrier_late": 0.1}
    looked_up = {**request, "origin": "EWR"}
    answers = _predict(client, full, looked_up, other, {**request, **UA, "origin": "EWR"}, {**looked_up, **EWR})
    assert answers[0] == answers[1] == answers[3] == answers[4]
    assert answers[2] != answers[0]


def test_an_unknown_key_is_a_missing_value(client: httpx.Client) -> None:
    request = {"carrier": "ZZ", "distance": 700, "tail_age": None}
    nothing = dict.fromkeys([*UA, *EWR])
    assert _predict(client, {**request, "origin": "??"}) == _predict(client, {**request, **nothing})


@pytest.mark.parametrize(
    ("row", "place", "says"),
    [
        ({}, "origin", "needed to look up the features of weather"),
        ({"origin": None}, "origin", "needed"),
        ({"origin": "EWR", "carrier_late": 0.5}, "carrier_flights", "all features of carrier_day or none"),
        ({"origin": 7}, "origin", "valid string"),
    ],
)
def test_missing_join_keys_are_named(client: httpx.Client, row: dict[str, Any], place: str, says: str) -> None:
    """The join key that lacks, or the half-given view."""
    answer = client.post("/predict", json={"rows": [{"carrier": "UA", "distance": 700, "tail_age": 3.0, **row}]})
    assert answer.status_code == 400
    problem = answer.json()["detail"][0]
    assert problem["loc"] == ["rows", 0, place]
    assert says in json.dumps(problem)
