"""What clients get from the gateway, by plain HTTP and by OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from sqlalchemy import select

from cli import chat
from services.store.database import Store, usage_records
from tasks.core.errors import Unavailable
from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import gateway_client
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

HELLO = [{"role": "user", "content": "Say hello."}]
FREE = {"type": "text"}


@pytest.fixture(scope="module")
def http(settings: Settings) -> Iterator[httpx.Client]:
    with gateway_client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def ai(settings: Settings, talker: Release) -> openai.OpenAI:
    address = f"http://127.0.0.1:{settings.gateway_port}/v1"
    return openai.OpenAI(base_url=address, api_key="none needed", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def rows(table: Release) -> list[dict]:
    return json.loads((table.folder / "golden.json").read_text())


def recorded(store: Store, request_id: str) -> bool:
    with store.reading() as connection:
        query = select(usage_records.c.id).where(usage_records.c.id == request_id)
        return connection.execute(query).first() is not None


def entry(store: Store, request_id: str) -> dict:
    with store.reading() as connection:
        return dict(connection.execute(usage_records.select().where(usage_records.c.id == request_id)).mappings().one())


def test_predictions_equal_the_releases_offline_ones(http, table, rows, store):
    """One row and many: the offline prediction, the release's digest, a request id, and an entry in the ledger."""
    for some in (rows[:1], rows):
        request = [{"example_id": row["example_id"], **row["features"]} for row in some]
        answer = http.post("/v1/predict/small", json={"rows": request})
        assert answer.status_code == 200, answer.text
        payload = answer.json()
        assert [p["score"] for p in payload["predictions"]] == [row["prediction"] for row in some]
        assert payload["release"] == answer.headers["x-driftline-release"] == table.digest
        assert payload["request_id"] == answer.headers["x-request-id"]
        entered = entry(store, payload["request_id"])
        assert (entered["state"], entered["case"], entered["digest"]) == ("done", "small", table.digest)
        assert entered["engine_seconds"] > 0


def test_a_wrong_row_is_refused_as_the_release_says(http, table, store):
    answer = http.post("/v1/predict/small", json={"rows": [{"carrier": 7}]})
    assert answer.status_code == 400
    assert any("carrier" in problem["loc"] for problem in answer.json()["detail"])
    assert entry(store, answer.headers["x-request-id"])["state"] == "refused"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/predict/nothing", b"{}", 404),
        ("POST", "/v1/predict/talker", b"{}", 404),
        ("GET", "/v1/predict/small", b"", 405),
        ("POST", "/nowhere", b"", 404),
        ("POST", "/v1/chat/completions", b"{nope", 400),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model": 7, "messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "gpt", "messages": []}', 404),
        ("POST", "/v1/chat/completions", b'{"model": "talker", "messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "talker", "messages": [], "stream": true}', 400),
        ("POST", "/v1/feedback/req-none", b'{"label": 1}', 404),
        ("POST", "/v1/feedback/req-none", b"{}", 400),
        ("POST", "/v1/predict/small", b" " * 17_000_000, 413),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors_have_openais_form(http, table, talker, method, path, body, status):
    answer = http.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_openais_client_lists_and_asks(ai, talker, store):
    """The official client, unchanged: models, an answer by the release's schema, usage, and the ledger's entry."""
    assert {model.id for model in ai.models.list()} >= {"talker", talker.bento}
    answer = ai.chat.completions.create(model="talker", messages=HELLO)
    assert "said" in answer.choices[0].message.content
    entered = entry(store, answer._request_id)
    assert entered["tokens_in"] == answer.usage.prompt_tokens > 0
    assert entered["tokens_out"] == answer.usage.completion_tokens > 0
    fresh = entered["tokens_in"] - entered["tokens_cached"]
    price = 1000 * fresh + 500 * entered["tokens_cached"] + 4000 * entered["tokens_out"]
    assert entered["price"] == price


def test_openais_client_streams(ai, talker, store):
    """The stream has the same text as the whole response; usage only on request, but always in the record."""
    request = {"model": "talker", "messages": HELLO, "response_format": FREE, "max_tokens": 12}
    whole = ai.chat.completions.create(**request)
    for wants_usage in (True, False):
        options = {"stream_options": {"include_usage": True}} if wants_usage else {}
        with ai.chat.completions.with_raw_response.create(**request, stream=True, **options).parse() as stream:
            chunks = list(stream)
            request_id = stream.response.headers["x-request-id"]
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
        )
        assert len(chunks) > 3
        assert [c.usage.completion_tokens for c in chunks if c.usage] == ([12] if wants_usage else [])
        entered = entry(store, request_id)
        assert (entered["state"], entered["tokens_out"]) == ("done", 12)
        assert entered["tokens_in"] == whole.usage.prompt_tokens


def test_a_replayed_day_costs_the_same_streamed_or_not(ai, talker, store):
    """The same calls either way leave the same tokens and the same price, call by call and in sum.

    `ignore_eos` makes each answer as long as it may get: near ties at temperature 0 fall by what else the engine does.
    And what the engine had in its own cache differs, so its discount is put back before prices are compared.
    """
    spent: dict[bool, list[tuple[int, int, int]]] = {}
    for streams in (True, False):
        entries = []
        for number in range(12):
            messages = [{"role": "user", "content": f"Say {'hello ' * number}again."}]
            request = {"model": "talker", "messages": messages, "temperature": 0, "response_format": FREE}
            more = {"max_tokens": 1 + number % 5, "stream": streams, "extra_body": {"ignore_eos": True}}
            answer = ai.chat.completions.with_raw_response.create(**request, **more)
            answer.http_response.read()
            entries.append(entry(store, answer.headers["x-request-id"]))
        assert {(e["state"], e["price"] > 0) for e in entries} == {("done", True)}
        spent[streams] = [(e["tokens_in"], e["tokens_out"], e["price"] + 500 * e["tokens_cached"]) for e in entries]
    assert spent[True] == spent[False]
    assert [out for _, out, _ in spent[True]] == [1 + number % 5 for number in range(12)]


def test_the_terminal_talks_through_the_gateway(settings, talker, monkeypatch):
    """Streamed; and refusals are shown."""
    monkeypatch.setattr(chat, "settings", lambda: settings)
    assert chat.at_gateway("talker")
    assert not chat.at_gateway("nothing")
    pieces = list(chat.through_gateway("talker", "Say hello."))
    assert len(pieces) > 3
    assert "said" in json.loads("".join(pieces))
    with pytest.raises(Unavailable, match="no model 'nothing'"):
        list(chat.through_gateway("nothing", "Say hello."))


def test_one_release_is_addressed_by_name(ai, talker):
    for name in (talker.bento, talker.digest):
        answer = ai.chat.completions.with_raw_response.create(model=name, messages=HELLO, max_tokens=4)
        assert answer.headers["x-driftline-release"] == talker.digest
    with pytest.raises(openai.NotFoundError, match="Available: talker"):
        ai.chat.completions.create(model="gpt-5", messages=HELLO)


def test_a_client_that_hangs_up_ends_the_engines_work(ai, talker, store):
    """What it had used until then is in the ledger, as aborted."""
    stream = ai.chat.completions.create(
        model="talker",
        messages=[{"role": "user", "content": "Count to one thousand."}],
        stream=True,
        response_format=FREE,
        max_tokens=400,
    )
    request_id = stream.response.headers["x-request-id"]
    for _ in range(4):
        next(stream)
    stream.response.close()
    assert wait_for(lambda: recorded(store, request_id))
    assert entry(store, request_id)["state"] == "aborted"
    entered = entry(store, request_id)
    assert 0 < entered["tokens_out"] < 300
    assert entered["price"] > 0


def test_a_repeated_request_comes_from_the_cache(ai, talker, store):
    """Streamed and not: the same bytes, at no price, with what it saved; another parameter is another question."""
    for streams in (False, True):
        request = {"model": "talker", "messages": HELLO, "temperature": 0, "max_tokens": 7, "stream": streams}
        first = ai.chat.completions.with_raw_response.create(**request)
        first.http_response.read()
        again = ai.chat.completions.with_raw_response.create(**request)
        again.http_response.read()
        assert again.headers["x-driftline-cache"] == "hit"
        assert float(again.headers["x-driftline-saved"]) > 0
        assert again.http_response.content == first.http_response.content
        entered = entry(store, again.headers["x-request-id"])
        assert (entered["state"], entered["price"]) == ("cached", 0)
        assert entered["saved"] > 0
        other = ai.chat.completions.with_raw_response.create(**(request | {"max_tokens": 8}))
        assert "x-driftline-cache" not in other.headers


def test_feedback_joins_what_was_answered(http, table, rows):
    """By the request id, with the release that it is about."""
    request = http.post("/v1/predict/small", json={"rows": [rows[0]["features"]]}).json()
    answer = http.post(f"/v1/feedback/{request['request_id']}", json={"label": 1, "thumbs": "up"})
    assert answer.status_code == 201
    assert answer.json() == {"request_id": request["request_id"], "case": "small", "release": table.digest}


def test_a_label_names_its_row(http, table, rows):
    """Of several rows one is meant, by its example_id; a name that is none of them is refused."""
    request = [{"example_id": row["example_id"], **row["features"]} for row in rows[:2]]
    id_ = http.post("/v1/predict/small", json={"rows": request}).json()["request_id"]
    payloads = [{"label": 1, "example_id": request[1]["example_id"]}, {"label": 1}, {"label": 1, "example_id": "none"}]
    answers = [http.post(f"/v1/feedback/{id_}", json=payload) for payload in payloads]
    assert [answer.status_code for answer in answers] == [201, 400, 400]
    assert answers[2].json()["error"]["param"] == "example_id"


def test_health_figures_and_document(http, table):
    """Alive, ready, who may ask, Prometheus's text, and an OpenAPI document with examples."""
    assert http.get("/healthz").is_success
    ready = http.get("/readyz").json()
    assert ready["champions"]["small"] == table.digest
    assert "this machine only" in ready["asked_by"]
    metrics = http.get("/metrics").text
    assert 'driftline_calls_total{case="small"' in metrics
    assert "driftline_call_seconds_bucket" in metrics
    document = http.get("/openapi.json").json()
    assert document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["example"]
