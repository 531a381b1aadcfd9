"""Promise: a release behind an address serves as any other; what its server does wrong never looks like an answer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from services.serving.chat_app import ChatApp
from services.serving.smoke import smoke
from tasks.core.errors import Unavailable
from tasks.language import remote_engine
from tasks.language.engine import Engine, start_engine
from tasks.language.released_model import require_server
from tasks.language.upstream import UPSTREAM, Upstream
from tests.language.upstreams import Reply, completion, error, events, misbehaving, whole
from tests.language_case import tiny_opened
from tests.serving.small_chat import FREE, ask, body, chat_release, chat_service
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> Path:
    """A release of small_chat, without its weights."""
    release = chat_release(tmp_path_factory.mktemp("sealed"))
    (release / "model.gguf").unlink()
    (release / "schema.json").unlink()
    return release


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Engine]:
    """A real server: llama.cpp's, with a key."""
    folder = tmp_path_factory.mktemp("upstream")
    with start_engine(tiny_opened(folder).served, threads=1, slots=2, context=256, name="tiny") as running:
        yield running


@contextmanager
def served(sealed: Path, folder: Path, upstream: Upstream, **options: Any) -> Iterator[tuple[ChatApp, httpx.Client]]:
    release = folder / sealed.name
    shutil.copytree(sealed, release)
    upstream.write(release / UPSTREAM)
    with chat_service(release, **options) as served:
        yield served


@pytest.fixture
def served_by_llama(sealed, engine, tmp_path, monkeypatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("TINY_KEY", engine.key)
    address = f"{engine.address}/v1"
    upstream = Upstream(source=f"openai+{address}#tiny", address=address, model="tiny", key="TINY_KEY")
    with served(sealed, tmp_path, upstream) as (_, client):
        yield client


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_it_serves_what_the_server_answers(served_by_llama, engine):
    """Complete and streamed, by the release's name, prompt and limit; the client's own types read all of it."""
    messages = [{"role": "system", "content": "Name a city."}, {"role": "user", "content": "Where?"}]
    expected = engine.chat(messages, max_tokens=24).text
    client = openai.OpenAI(base_url=f"{served_by_llama.base_url}/v1", api_key="none", max_retries=0)
    options: dict[str, Any] = {"model": "small", "messages": [messages[1]]}
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].message.content == expected
    assert answer.model.startswith("small:")
    assert answer.usage
    assert answer.usage.completion_tokens <= 24
    usage: Any = {"include_usage": True}
    with client.chat.completions.create(stream=True, stream_options=usage, **options) as stream:
        chunks = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == expected
    assert {each.model for each in chunks} == {answer.model}
    assert chunks[-1].usage == answer.usage or chunks[-1].usage
    assert len(client.chat.completions.create(n=2, **options).choices) == 2
    assert client.chat.completions.create(logprobs=True, top_logprobs=1, **options).choices[0].logprobs


def test_it_passes_the_smoke_test(sealed, engine, tmp_path, monkeypatch):
    """The smoke test requires answers, not equal ones: a server may answer otherwise from one time to the next."""
    monkeypatch.setenv("TINY_KEY", engine.key)
    address = f"{engine.address}/v1"
    upstream = Upstream(source=f"openai+{address}#tiny", address=address, model="tiny", key="TINY_KEY")
    with served(sealed, tmp_path, upstream) as (_, client):
        folder = tmp_path / sealed.name
        messages = [{"role": "user", "content": "Where?"}]
        (folder / "golden.json").write_text(json.dumps([{"example_id": "a", "messages": messages, "answer": "?"}]))
        assert smoke(folder, str(client.base_url))["examples"] == 1


@pytest.mark.parametrize("reply", [whole(b"<html>"), whole({}), whole({"choices": []}), Reply(200, [])], ids=str)
def test_nonsense_is_a_bad_gateway(sealed, tmp_path, reply):
    """502, complete and streamed; the next good answer is one."""
    with (
        misbehaving(reply) as server,
        served(sealed, tmp_path, server.upstream) as (app, client),
    ):
        for request in (body(), body(stream=True)):
            response = ask(client, request)
            assert response.status_code == 502, response.text
            assert response.json()["error"]["type"] == "server_error"
        assert app.watch.ready
        server.script = lambda *_: whole(completion("fine"))
        assert text_of(ask(client, body())) == "fine"


def test_a_broken_stream_ends_with_an_error(sealed, tmp_path):
    """An event that is none, an error, and a stream without its end: what came before is passed on first."""
    good = events("Pa", "ris").pieces[:2]
    kind = {"content-type": "text/event-stream"}
    lost = b'data: {"error": {"message": "lost"}}\n\n'
    for name, tail in (("html", b"data: <html>\n\n"), ("lost", lost), ("end", b"")):
        reply = Reply(200, [*good, tail], kind)
        with misbehaving(reply) as server, served(sealed, tmp_path / name, server.upstream) as (_, client):
            lines = ask(client, body(stream=True)).text.split("\n\n")
            assert '"Pa"' in lines[0]
            assert '"error"' in lines[2]
            assert "[DONE]" not in "".join(lines)
    reply = events("Pa", "ris", done=False)
    with misbehaving(reply) as server, served(sealed, tmp_path / "done", server.upstream) as (_, client):
        assert ask(client, body(stream=True)).text.rstrip().endswith("data: [DONE]")


def test_what_passes_is_tried_again_and_costs_nothing(sealed, tmp_path):
    """The seconds before the last attempt are named, so that the gateway does not charge for them."""
    replies = [
        whole(error("busy"), 503, **{"retry-after": "0.3"}),
        Reply(200, [b"{"], broken=True),
        whole(completion()),
    ]
    with misbehaving(lambda _, n: replies[n]) as server, served(sealed, tmp_path, server.upstream) as (_, client):
        response = ask(client, body())
        assert text_of(response) == "yes"
        assert float(response.headers["x-driftline-lost-seconds"]) > 0.3
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (whole(error("too long"), 400), 400),
        (whole(error("wrong key sk-1"), 401), 502),
        (whole(error("no model"), 404), 502),
        (whole(error("over quota", "insufficient_quota"), 429), 502),
        (whole(error("down"), 503, **{"retry-after": "600"}), 503),
    ],
    ids=["400", "401", "404", "quota", "503"],
)
def test_only_its_own_errors_are_the_clients(sealed, tmp_path, reply, status):
    """A refusal of the request is 400 with its reason; what the operator must correct is a fault of the service."""
    with misbehaving(reply) as server, served(sealed, tmp_path, server.upstream) as (_, client):
        response = ask(client, body())
        assert response.status_code == status
        assert ("retry-after" in response.headers) == (status == 503)


def test_a_slow_server_is_late_and_stays_ready(sealed, tmp_path, monkeypatch):
    """A call ends at its deadline; readiness does not change, however often it is checked meanwhile."""
    monkeypatch.setattr(remote_engine, "PROBE_INTERVAL", 0.0)
    monkeypatch.setattr(remote_engine, "MAX_UNREACHABLE", 0.5)
    with (
        misbehaving(Reply(200, [b" "] * 60, pause=0.2)) as server,
        served(sealed, tmp_path, server.upstream, deadline=2.0) as (app, client),
    ):
        begun = time.monotonic()
        response = ask(client, body())
        assert response.status_code == 504
        assert time.monotonic() - begun < 4
        assert app.watch.ready
        assert app.watch.restarts == 0


def test_a_server_that_is_gone_makes_it_unready_until_it_is_back(sealed, tmp_path, monkeypatch):
    """503 with Retry-After meanwhile; it starts without its server, too."""
    monkeypatch.setattr(remote_engine, "PROBE_INTERVAL", 0.0)
    monkeypatch.setattr(remote_engine, "MAX_UNREACHABLE", 0.5)
    with misbehaving(whole(completion())) as server:
        port, upstream = server.server_port, server.upstream
    with served(sealed, tmp_path, upstream) as (app, client):
        assert not app.watch.ready
        with pytest.raises(Unavailable, match="does not answer"):
            require_server(tmp_path / sealed.name)
        for _ in range(2):
            response = ask(client, body())
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert response.json()["error"]["code"] == "model_unavailable"
            with misbehaving(whole(completion()), port=port):
                assert wait_for(lambda: app.watch.ready, 10)
                assert text_of(ask(client, body())) == "yes"
            assert wait_for(lambda: not app.watch.ready, 10)


def test_the_server_gets_what_the_release_states(sealed, tmp_path, monkeypatch):
    """Model, key and parameters of the case; not what only llama.cpp knows. What they fix is refused by its name."""
    monkeypatch.setenv("THEIR_KEY", "sk-secret")
    with misbehaving(whole(completion())) as server:
        changes = {"key": "THEIR_KEY", "parameters": {"temperature": None, "effort": "low"}, "json_schema": False}
        with served(sealed, tmp_path, server.upstream.model_copy(update=changes)) as (_, client):
            assert text_of(ask(client, body(stop="x", cache_prompt=False))) == "yes"
            sent = server.requests[0]
            messages = [{"role": "system", "content": "Name a city."}, {"role": "user", "content": "Where?"}]
            expected = {"messages": messages, "model": "m", "effort": "low", "max_tokens": 24, "seed": 0, "stop": ["x"]}
            assert sent == expected
            assert server.headers[0]["authorization"] == "Bearer sk-secret"
            schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
            refused = {"temperature": 0.5, "response_format": schema, "ignore_eos": True}
            for name, value in refused.items():
                more = {"response_format": FREE} if name == "ignore_eos" else {}
                response = ask(client, body(**more, **{name: value}))
                assert (response.status_code, response.json()["error"]["param"]) == (400, name)
            assert len(server.requests) == 1
