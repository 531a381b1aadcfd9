"""Releases whose models are behind addresses: keys, budgets and records as for others; another release answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from services.rollout.shares import ShareSpec, promote, remove_share, rollback, set_share
from services.runtime import stack
from services.store.database import Store, budgets, usage_records
from services.store.keys import create_key
from tasks.core.settings import Settings
from tasks.language.engine import Engine, start_engine
from tasks.language.upstream import Upstream
from tasks.release.config import NANO, Price
from tasks.release.results import Release
from tests.gateway.stack import PRICE, gateway_client, guarded_gateway, remote_release, serve
from tests.language.upstreams import Misbehaving, completion, events, misbehaving, whole
from tests.language_case import tiny_opened
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

USERS = [f"user {number}" for number in range(12)]  # of whom some are in the arm


def chat_body(text: str, user: str = "", **more: Any) -> dict[str, Any]:
    return {"model": "remote", "messages": [{"role": "user", "content": text}], "user": user, **more}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, upstream_key: str) -> Iterator[Engine]:
    """A second llama.cpp server, with a key."""
    folder = tmp_path_factory.mktemp("llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.language.engine.secrets.token_hex", lambda _: upstream_key)
        started = start_engine(tiny_opened(folder).served, threads=1, slots=2, context=256, name="tiny")
        engine = started.__enter__()
    yield engine
    started.__exit__(None, None, None)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Misbehaving]:
    with misbehaving(whole(completion("scripted"))) as server:
        yield server


@pytest.fixture(scope="module")
def releases(settings, state, talker, llama, scripted) -> Iterator[dict[str, Release]]:
    """Of one case: behind llama.cpp, behind a scripted server, and behind this gateway itself."""
    address = f"{llama.address}/v1"
    own = f"http://127.0.0.1:{settings.gateway_port}/v1"
    upstreams = {
        "scripted": scripted.upstream,
        "llama": Upstream(source=f"openai+{address}#tiny", address=address, model="tiny", key="UPSTREAM_TEST_KEY"),
        "gateway": Upstream(source=f"openai+{own}#talker", address=own, model="talker"),
    }
    served = {
        name: serve(settings, remote_release(state, upstream), champion=name == "scripted")
        for name, upstream in upstreams.items()
    }
    store = Store(settings)
    set_share(store, "remote", ShareSpec(served["llama"].digest, "arm", 50, "b"), "a test")
    store.close()
    yield served
    for release in served.values():
        stack.stop_release(settings, release)  # their servers end with these tests


@pytest.fixture(scope="module")
def guarded(settings: Settings, releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with guarded_gateway(settings, tmp_path_factory.mktemp("remote")) as config:
        yield config


class Client:
    """A key with a budget, and what the store says of its calls."""

    def __init__(self, config: Settings, http: httpx.Client, key: str) -> None:
        self.http, self.key, self._config = http, key, config

    def chat(self, body: dict[str, Any]) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=body)

    def records(self) -> list[dict[str, Any]]:
        """Its usage records, in their order; the budget has spent just their sum, and reserves nothing."""
        store = Store(self._config)
        columns = usage_records.c
        with store.reading() as connection:
            rows = connection.execute(select(usage_records).where(columns.key == self.key).order_by(columns.at))
            records = [dict(row) for row in rows.mappings()]
            budget = connection.execute(select(budgets).where(budgets.c.owner == f"key:{self.key}")).mappings().one()
        store.close()
        assert (budget["spent"], budget["reserved"]) == (sum(each["price"] for each in records), 0)
        return records


@contextmanager
def client_of(config: Settings, budget: float = 1.0) -> Iterator[Client]:
    store = Store(config)
    id_, secret = create_key(store, "team", ["predict"], None, None, budget)
    store.close()
    with gateway_client(config, secret) as http:
        assert wait_for(lambda: http.get("/v1/models").is_success, 3)
        yield Client(config, http, id_)


def users_of(client: Client, digest: str) -> list[str]:
    """The users that a release answers."""
    answers = {user: client.chat(chat_body("Who?", user)) for user in USERS}
    return [user for user, answer in answers.items() if answer.headers["x-driftline-release"] == digest]


def test_a_llama_server_behind_keys_and_budgets(guarded, releases):
    """Whole and streamed: the answer names release and prompt, and is paid by its tokens to the billionth."""
    digest = releases["llama"].digest
    body = chat_body("Where?") | {"model": f"remote:{digest[:12]}"}
    with client_of(guarded) as client:
        answer = client.chat(body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-driftline-prompt"].startswith("short@")
        streamed = client.chat(body | {"stream": True, "stream_options": {"include_usage": True}})
        chunks = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
        text = "".join(each["delta"].get("content") or "" for chunk in chunks for each in chunk["choices"])
        assert text == answer.json()["choices"][0]["message"]["content"]
        for record, usage in zip(client.records(), (answer.json()["usage"], chunks[-1]["usage"]), strict=True):
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            counts = usage["prompt_tokens"] - cached, cached, usage["completion_tokens"]
            assert record["price"] == Price(**PRICE).of(*counts, 0.0) > 0
            assert (record["state"], record["digest"], record["retries"]) == ("done", digest, 0)
    with client_of(guarded, budget=1 / NANO) as poor:
        refused = poor.chat(body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


def test_the_gateway_is_the_upstream_of_a_release(guarded, settings, releases, store):
    """Both gateways record the call, with the same tokens; the inner release's schema holds."""
    with client_of(guarded) as client:
        body = chat_body("Say hello.", max_tokens=24) | {"model": f"remote:{releases['gateway'].digest[:12]}"}
        answer = client.chat(body)
        assert answer.status_code == 200, answer.text
        assert set(json.loads(answer.json()["choices"][0]["message"]["content"])) == {"said"}
        (outer,) = client.records()
    with store.reading() as connection:
        newest = select(usage_records).where(usage_records.c.case == "talker").order_by(usage_records.c.at.desc())
        inner = connection.execute(newest).mappings().first()
    names = ("tokens_in", "tokens_cached", "tokens_out")
    assert [outer[name] for name in names] == [inner[name] for name in names]


def test_nonsense_of_an_upstream_is_answered_by_another_release(guarded, releases, scripted):
    """The failed attempt is recorded and free; the other release's answer is paid; the client's limit counts once."""
    with client_of(guarded) as client:
        (user, *_) = users_of(client, releases["scripted"].digest)
        before = len(client.records())
        scripted.script = lambda *_: whole(b"<html>It works!</html>")
        for stream in (False, True):
            answer = client.chat(chat_body("Where?", user, stream=stream))
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-driftline-release"] == releases["llama"].digest
        scripted.script = lambda *_: whole(completion("scripted"))
        shown = [
            (each["state"], each["retries"], each["digest"], each["price"] > 0) for each in client.records()[before:]
        ]
        failed = ("failed", 0, releases["scripted"].digest, False)
        assert shown == [failed, ("done", 1, releases["llama"].digest, True)] * 2


def test_an_answer_that_breaks_off_is_not_repeated(guarded, releases, scripted):
    """What the client has read stands; an error ends the stream, and the call is free."""
    with client_of(guarded) as client:
        (user, *_) = users_of(client, releases["scripted"].digest)
        before = len(client.records())
        whole_stream = events("Pa", "ris")
        scripted.script = lambda *_: events("Pa", "ris", finish=None)
        scripted.script = lambda *_: type(whole_stream)(
            200, [*whole_stream.pieces[:1], b'data: {"error": {"message": "lost"}}\n\n'], whole_stream.headers, 0.2
        )
        answer = client.chat(chat_body("Where?", user, stream=True))
        scripted.script = lambda *_: whole(completion("scripted"))
        assert '"Pa"' in answer.text
        assert '"error"' in answer.text
        (record,) = client.records()[before:]
        assert (record["state"], record["retries"], record["price"]) == ("failed", 0, 0)


def test_a_killed_upstream_costs_nobody_an_answer(guarded, releases, llama):
    """The arm's server is killed: its users get answers of the champion, at once when the release has noticed."""
    with client_of(guarded) as client:
        users = users_of(client, releases["llama"].digest)
        before = len(client.records())
        llama.kill()
        answers = [client.chat(chat_body("Where now?", user)) for user in users[:2]]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-driftline-release"] for answer in answers} == {releases["scripted"].digest}
        shown = [(each["state"], each["retries"]) for each in client.records()[before:]]
        assert shown == [("failed", 0), ("done", 1)] * 2


def test_a_prompt_is_a_canary_and_is_rolled_back(settings, state, talker, store):
    """Its share of the users gets the new prompt, each answer names its version, and after a rollback nobody does."""

    def system(request: dict[str, Any], _: int) -> Any:
        return whole(completion(request["messages"][0]["content"]))

    with misbehaving(system) as server, gateway_client(settings) as http:
        served = {
            name: serve(settings, remote_release(state, server.upstream, "prompts", name), champion=name == "formal")
            for name in ("formal", "brief")
        }
        set_share(store, "prompts", ShareSpec(served["brief"].digest, "canary", 50), "a test")

        def answers() -> list[tuple[str, str]]:
            """The prompt that each user's answer names, and the text that the model got."""
            calls = [
                http.post("/v1/chat/completions", json=chat_body("Hi", user) | {"model": "prompts"}) for user in USERS
            ]
            texts = [call.raise_for_status().json()["choices"][0]["message"]["content"] for call in calls]
            return [(call.headers["x-driftline-prompt"], text) for call, text in zip(calls, texts, strict=True)]

        assert wait_for(lambda: {text for _, text in answers()} == {"formal", "brief"}, 10)
        found = answers()
        assert all(name.startswith(f"{text}@") for name, text in found)
        assert found == answers()
        remove_share(store, "prompts", served["brief"].digest, "worse answers")
        assert wait_for(lambda: {text for _, text in answers()} == {"formal"}, 10)
        promote(store, "prompts", served["brief"].digest, "better after all")
        assert wait_for(lambda: {text for _, text in answers()} == {"brief"}, 10)
        rollback(store, "prompts", None, "worse")
        assert wait_for(lambda: {text for _, text in answers()} == {"formal"}, 10)
        for release in served.values():
            stack.stop_release(settings, release)  # their server ends with this test
