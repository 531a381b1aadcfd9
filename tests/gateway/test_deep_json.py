"""Promise: JSON that nests too deep is a client's error and is recorded, on every route."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from services.store.database import REFUSED, usage_records
from tests.gateway.stack import gateway_client

pytestmark = pytest.mark.xdist_group("gateway")

DEPTHS = [254, 255, 700, 1025, 100_000]


def nested(levels: int, kind: str) -> str:
    opens, closes = {"list": ("[", "]"), "object": ('{"a":', "}")}[kind]
    return opens * levels + "1" + closes * levels


def refused(store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).where(usage_records.c.state == REFUSED)).scalar_one()


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("levels", DEPTHS)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", '{"model": "talker", "messages": %s}'),
        ("chat/completions", '{"messages": [{"role": "user", "content": "Hi"}], "user": %s, "model": "talker"}'),
        ("chat/completions", '{"model": "talker", "stream": true, "messages": [], "response_format": %s}'),
        ("embeddings", '{"model": "talker", "input": %s}'),
        ("predict/small", '{"rows": %s}'),
        ("predict/small", '{"rows": [{"a": %s}]}'),
    ],
)
def test_nested_json_is_refused_and_recorded(settings, store, table, talker, levels, kind, path, body):
    before = refused(store)
    with gateway_client(settings) as http:
        response = http.post(f"/v1/{path}", content=body % nested(levels, kind))
    assert response.status_code == 400, response.text[:300]
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert refused(store) == before + 1


@pytest.mark.parametrize("levels", DEPTHS)
def test_other_calls_are_not_affected(settings, table, talker, levels):
    """The release goes on to answer."""
    with gateway_client(settings) as http:
        http.post("/v1/predict/small", content='{"rows": ' + nested(levels, "list") + "}")
        http.post("/v1/feedback/req-none", content='{"label": ' + nested(levels, "list") + "}")
        assert http.get("/readyz").json()["status"] == "ready"
