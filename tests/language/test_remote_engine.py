"""Promise: a model behind an address answers as a local engine does; what its server does wrong is a clear error."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tasks.core.errors import DataError, Unavailable
from tasks.language import remote_engine
from tasks.language.engine import Engine, start_engine
from tasks.language.remote_engine import RemoteEngine, connect_upstream
from tasks.language.upstream import Upstream
from tests.language.upstreams import Reply, completion, error, events, misbehaving, whole
from tests.language_case import tiny_opened

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}}, "required": ["city"]}
QUESTION = [{"role": "user", "content": "Where is it warm?"}]


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Iterator[Engine]:
    """A real server with OpenAI's API: llama.cpp's."""
    folder = tmp_path_factory.mktemp("upstream")
    with start_engine(tiny_opened(folder).served, threads=1, slots=2, context=256, name="tiny") as engine:
        yield engine


@pytest.fixture
def remote(local, monkeypatch) -> Iterator[RemoteEngine]:
    """The same model, behind its address."""
    monkeypatch.setenv("TINY_KEY", local.key)
    address = f"{local.address}/v1"
    upstream = Upstream(source=f"openai+{address}#tiny", address=address, model="tiny", key="TINY_KEY")
    with connect_upstream(upstream, slots=2) as engine:
        yield engine


def test_it_answers_as_the_local_engine_does(local, remote):
    """The same text, tokens as the server counts them, complete, in a batch and streamed; and JSON by a schema."""
    expected, answer = (engine.chat(QUESTION, max_tokens=8) for engine in (local, remote))
    assert replace(answer, seconds=0, tokens_cached=0) == replace(expected, seconds=0, tokens_cached=0)
    assert "".join(remote.stream(QUESTION, max_tokens=8)) == expected.text
    assert [each.text for each in remote.chat_batch([QUESTION] * 3, max_tokens=8)] == [expected.text] * 3
    city = remote.chat(QUESTION, max_tokens=40, schema=SCHEMA)
    assert json.loads(city.text)["city"] in ("Paris", "Oslo")
    assert remote.fault() == ""
    assert [each["id"] for each in remote.models()] == ["tiny"]


def test_a_refused_request_is_an_error_of_the_user(remote):
    """A prompt beyond the context, and a schema that is none, as with the local engine."""
    with pytest.raises(DataError, match="refuses this") as caught:
        remote.chat([{"role": "user", "content": "a " * 1000}], max_tokens=4)
    assert "256" in caught.value.found


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>It works!</body></html>",
        b"",
        b'{"choices": [',
        b"[]",
        {},
        {"choices": []},
        {"choices": "yes"},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": ["yes"]}}]},
        {**completion(), "usage": {"prompt_tokens": -1, "completion_tokens": 1}},
        {**completion(), "usage": {"prompt_tokens": "7", "completion_tokens": 1}},
        {"error": {"message": "overloaded"}},
    ],
    ids=lambda body: str(body)[:40],
)
def test_nonsense_with_status_200_is_no_answer(body):
    """The error shows how it begins, and names address and model."""
    with misbehaving(whole(body)) as server, connect_upstream(server.upstream) as engine:
        with pytest.raises(Unavailable, match="no chat completion") as caught:
            engine.chat(QUESTION, max_tokens=4)
        assert "it begins" in caught.value.found
        assert server.address in caught.value.where
        assert len(server.requests) == 1


def test_a_stream_of_nonsense_is_no_answer():
    """An event that is no part of a chat, as an error and not as text."""
    for reply in (whole(b"data: <html>\n\n"), whole({**completion()})):
        with misbehaving(reply) as server, connect_upstream(server.upstream) as engine:
            if reply.pieces[0].startswith(b"data"):
                with pytest.raises(Unavailable, match="no stream of a chat"):
                    list(engine.stream(QUESTION, max_tokens=4))
    with misbehaving(events("ye", "s")) as server, connect_upstream(server.upstream) as engine:
        assert "".join(engine.stream(QUESTION, max_tokens=4)) == "yes"


def test_passing_faults_are_tried_again():
    """A closed connection, 503 and 429 with the time that the server names; then the answer."""
    replies = [
        Reply(200, [b"{"], broken=True),
        whole(error("loading"), 503, **{"retry-after": "0.1"}),
        whole(error("slow down"), 429, **{"retry-after": "0.4"}),
        whole(completion("at last")),
    ]
    with misbehaving(lambda _, number: replies[number]) as server, connect_upstream(server.upstream) as engine:
        begun = time.monotonic()
        assert engine.chat(QUESTION, max_tokens=4).text == "at last"
        assert time.monotonic() - begun > 0.5
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("reply", "requests"),
    [
        (whole(error("quota", "insufficient_quota"), 429), 1),
        (whole(error("wait"), 429, **{"retry-after": "600"}), 1),
        (whole(error("broken"), 500, **{"retry-after": "0"}), 5),
        (whole(error("no model"), 404), 1),
        (whole(error("wrong key"), 401), 1),
        (whole(b"", 301, location="http://127.0.0.1:9/"), 1),
    ],
    ids=["quota", "late", "broken", "no model", "wrong key", "redirect"],
)
def test_what_does_not_pass_ends_soon(reply, requests):
    """No request is repeated without hope, beyond the deadline or for ever."""
    with misbehaving(reply) as server, connect_upstream(server.upstream, timeout=60) as engine:
        with pytest.raises(Unavailable) as caught:
            engine.chat(QUESTION, max_tokens=4)
        assert f"HTTP {reply.status}" in caught.value.found
        assert len(server.requests) == requests


def test_a_slow_server_does_not_hold_a_run_for_ever():
    """One that is silent, and one that sends a blank now and then: both end at the timeout."""
    for reply in (Reply(200, [b" "], pause=30), Reply(200, [b" "] * 200, pause=0.2)):
        with misbehaving(reply) as server, connect_upstream(server.upstream, timeout=1) as engine:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="does not answer"):
                engine.chat(QUESTION, max_tokens=4)
            assert time.monotonic() - begun < 3


def test_an_answer_without_an_end_is_an_error(monkeypatch):
    """A server can't fill the memory."""
    monkeypatch.setattr(remote_engine, "MAX_BYTES", 1 << 20)
    reply = Reply(200, [b" " * (1 << 19)] * 8)
    with (
        misbehaving(reply) as server,
        connect_upstream(server.upstream) as engine,
        pytest.raises(Unavailable, match="no end"),
    ):
        engine.chat(QUESTION, max_tokens=4)


def test_an_answer_without_usage_is_counted_by_its_length():
    """What nobody counts would cost nothing."""
    with misbehaving(whole(completion("12345678", usage=None))) as server, connect_upstream(server.upstream) as engine:
        answer = engine.chat(QUESTION, max_tokens=4)
    assert answer.tokens_out == 2
    assert answer.tokens_in > 10


def test_a_server_that_is_gone_is_a_fault_after_some_time(monkeypatch):
    """A short break is none; a slow server never is, since it accepts connections."""
    monkeypatch.setattr(remote_engine, "PROBE_INTERVAL", 0.0)
    with misbehaving(Reply(200, [b" "], pause=30)) as server, connect_upstream(server.upstream) as engine:
        assert engine.fault() == ""
        server.shutdown()
        server.server_close()
        assert engine.fault() == ""
        monkeypatch.setattr(remote_engine, "MAX_UNREACHABLE", 0.0)
        assert "ConnectionRefusedError" in engine.fault()
        with pytest.raises(Unavailable, match="does not answer"):
            engine.chat(QUESTION, max_tokens=4)
