"""Promise: feedback is bounded in kind, size, number and rate, whoever sends it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.store.database import DONE, Store, feedback
from services.store.feedback import Feedback, acceptance, rating_of
from tests.gateway.in_process import call_of, in_process_gateway, settings_of

REFUSED = [
    '{"label": 1%s}' % ("0" * 400),
    '{"label": -1%s}' % ("0" * 400),
    '{"label": 1%s}' % ("0" * 5000),
    '{"label": 9007199254740993}',
    '{"label": 1e999}',
    '{"label": 1e300}',
    '{"label": NaN}',
    '{"label": -Infinity}',
    '{"label": [1]}',
    '{"label": {}}',
    '{"label": "%s"}' % ("x" * 20_001),
    '{"label": "\\ud800"}',
    '{"label": ' + "[" * 300 + "]" * 300 + "}",
    '{"score": 1e400}',
    '{"score": 2}',
    '{"score": true}',
    '{"thumbs": "sideways"}',
    '{"label": 1, "example_id": "%s"}' % ("x" * 201),
    '{"label": 1, "example_id": 7}',
    '{"corrected": "%s"}' % ("x" * 20_001),
    '{"preferred": "%s"}' % ("x" * 41),
    '{"label": null}',
    "[" * 100_000,
    "7",
    "",
]
TAKEN = ["1", "-1", "1.5", "true", '"late"', '"nan"', '"1e999"', "9007199254740992", "0.0"]


def post(state: Path, bodies: list[str]) -> list[Any]:
    """The responses to feedback about one call that was answered."""

    async def run() -> list[Any]:
        async with in_process_gateway(settings_of(state)) as (gateway, client):
            call = call_of()
            call.classes = {"": 1}
            await gateway.metering.begin(call, 10, {})
            await gateway.metering.end(call, DONE, 200)
            return [await client.post(f"/v1/feedback/{call.id}", content=body) for body in bodies]

    return asyncio.run(run())


def test_what_is_absurd_is_refused_in_openais_form(tmp_path: Path):
    for body, response in zip(REFUSED, post(tmp_path, REFUSED), strict=True):
        assert response.status_code == 400, body[:80]
        assert response.json()["error"]["message"]


def test_what_is_usual_is_taken_and_can_be_judged(tmp_path: Path):
    bodies = [f'{{"label": {label}}}' for label in TAKEN]
    assert [response.status_code for response in post(tmp_path, bodies)] == [201] * len(TAKEN)
    store = Store(settings_of(tmp_path))
    with store.reading() as connection:
        assert len(connection.execute(feedback.select()).all()) == len(TAKEN)
        assert list(acceptance(connection).values()) == [False]  # the last word that could be held to the class: 0.0
    store.close()


def test_a_large_body_is_refused(tmp_path: Path):
    (response,) = post(tmp_path, ['{"label": "' + "x" * 200_000 + '"}'])
    assert response.status_code == 413
    assert "128 kB" in response.json()["error"]["message"]


def test_one_request_has_so_many_records_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.store.feedback.MAX_RECORDS", 5)
    responses = post(tmp_path, ['{"thumbs": "up"}'] * 8)
    assert [response.status_code for response in responses] == [201] * 5 + [409] * 3
    assert responses[-1].json()["error"]["code"] == "too_many"


def test_a_key_gives_so_much_feedback_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.gateway.rate_limits.FEEDBACK", 10)
    responses = post(tmp_path, ['{"thumbs": "up"}'] * 12)
    assert [response.status_code for response in responses] == [201] * 10 + [429] * 2
    error = responses[-1].json()["error"]
    assert (error["code"], "10 feedback records" in error["message"]) == ("rate_limit_exceeded", True)
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize("payload", [{"score": "high"}, {"score": None}, {"thumbs": 7}, {"label": 10**400}])
def test_what_old_stores_hold_has_some_opinion_or_none(payload: dict[str, Any]):
    assert rating_of(payload) is None or isinstance(rating_of(payload), str)


def test_the_longest_correction_fits_however_it_is_written(tmp_path: Path):
    escaped = '{"corrected": "' + "\\u00e4" * 20_000 + '"}'
    assert [response.status_code for response in post(tmp_path, [escaped])] == [201]
    assert len(Feedback.model_validate_json(escaped).corrected or "") == 20_000
