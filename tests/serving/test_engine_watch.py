"""Promise: an engine that dies or hangs is replaced, readiness says so meanwhile, and its calls wait or are retried."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.serving.engine_watch import EngineWatch
from services.serving.package import bento_folder, package
from services.serving.process import serve_bento
from tasks.core.errors import DriftlineError, Unavailable
from tasks.core.settings import ROOT
from tasks.core.sockets import http_client
from tests.serving.small_chat import ask, body, chat_release, chat_service, endless, engine_process
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return chat_release(tmp_path_factory.mktemp("watch"))


@pytest.fixture
def service(release) -> Iterator[tuple]:
    with chat_service(release) as (app, client):
        yield app, client


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=lambda end: end.name)
def test_a_dead_engine_is_replaced(service, end):
    """Whatever ended it, the next call waits for another one and is answered."""
    app, client = service
    restarts, process = app.watch.restarts, engine_process()
    process.send_signal(end)
    process.wait(10)
    assert ask(client, body()).status_code == 200
    assert app.watch.restarts == restarts + 1
    assert engine_process() != process


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_calls_without_a_token_outlive_their_engine(service, stream):
    """What no client has seen a part of yet is asked of the next engine: calls in a queue and whole answers."""
    app, client = service
    request = endless(seed=3) | {"max_tokens": 300}

    def call(_: int) -> int:
        if not stream:
            return ask(client, request).status_code
        with client.stream("POST", "/v1/chat/completions", json={**request, "stream": True}) as response:
            text = response.read().decode()
            return response.status_code if "[DONE]" in text or "model_died" in text else 0

    with ThreadPoolExecutor(6) as pool:
        calls = pool.map(call, range(6))
        time.sleep(0.3)
        engine_process().kill()
        assert list(calls) == [200] * 6
    assert wait_for(lambda: app.watch.ready, 10)


def test_a_stream_that_its_engine_breaks_off_ends_with_an_error(service):
    """The client hears that the answer is not whole."""
    _, client = service
    with client.stream("POST", "/v1/chat/completions", json=endless(stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        engine_process().kill()
        assert '"model_died"' in [line for line in lines if line][-1]


def test_a_stopped_engine_is_replaced(service):
    """A process that lives and does nothing is a hung one; whoever waits for it is answered by the next."""
    app, client = service
    assert wait_for(lambda: app.watch.ready, 10)
    process, answered = engine_process(), []
    process.suspend()
    waiting = threading.Thread(target=lambda: answered.append(ask(client, body()).status_code))
    waiting.start()
    assert wait_for(lambda: not process.is_running() or not app.watch.ready, 30), "it counts as up"
    waiting.join(30)
    assert answered == [200]
    assert not process.is_running()


def test_without_an_engine_calls_get_503_and_readiness_is_false(release, monkeypatch, tmp_path):
    """Where none can be started, a call waits for a bounded time and hears when to come again; then all is well."""
    monkeypatch.setattr("services.serving.engine_client.ENGINE_TIMEOUT", 1.0)
    with chat_service(release) as (app, client):
        model = release / "model.gguf"
        model.rename(tmp_path / "model.gguf")
        engine_process().kill()
        assert wait_for(lambda: not app.watch.ready, 5)
        begun = time.monotonic()
        response = ask(client, body())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "model_unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert time.monotonic() - begun < 5
        (tmp_path / "model.gguf").rename(model)
        assert wait_for(lambda: app.watch.ready, 20)
        assert ask(client, body()).status_code == 200


def test_an_engine_that_fails_the_check_does_not_serve(release):
    """The golden check is for every engine, not only the first one."""
    from tasks.language.released_model import ReleasedModel

    passed = [True]

    def check(_: Any) -> None:
        if not passed[0]:
            raise DriftlineError("It reads prompts otherwise.")

    watch = EngineWatch(ReleasedModel(release).start, check)
    watch.open()
    try:
        passed[0] = False
        engine_process().kill()
        assert wait_for(lambda: not watch.ready, 5)
        time.sleep(3)
        assert not watch.ready
        passed[0] = True
        assert wait_for(lambda: watch.ready, 20)
    finally:
        watch.close()


def test_a_first_engine_that_cannot_start_is_an_error(tmp_path, release):
    """A service that never had an engine does not come up; its supervisor says why."""
    from tasks.language.engine import start_engine

    (tmp_path / "bad.gguf").write_bytes((release / "model.gguf").read_bytes()[:100_000])
    watch = EngineWatch(lambda: start_engine(tmp_path / "bad.gguf", threads=1, slots=1, context=64), lambda _: None)
    with pytest.raises(Unavailable, match="did not get ready"):
        watch.open()


def test_the_bento_is_not_ready_without_its_engine(release, tmp_path):
    """/readyz of the real service: 503 from the hang until another engine is up."""
    tag = package(release, tmp_path / "bentoml", ROOT / "requirements.lock")
    with (
        serve_bento(bento_folder(tmp_path / "bentoml", tag), {}, tmp_path / "log") as address,
        http_client(address, timeout=60) as client,
    ):
        assert client.get("/readyz").status_code == 200
        process = engine_process()
        process.suspend()
        assert wait_for(lambda: client.get("/readyz").status_code == 503, 30, 0.05)
        assert wait_for(lambda: client.get("/readyz").status_code == 200, 30)
        assert ask(client, body()).status_code == 200
        assert not process.is_running()
