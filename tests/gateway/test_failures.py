"""Killed processes: which calls and records survive."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from services.gateway.request_log import recover_log
from services.runtime.process_specs import release_program_name
from services.runtime.supervision import Supervisor
from services.serving.process import free_port
from services.store.database import usage_records
from tests.gateway.stack import gateway, gateway_client, kill_all, worker_processes
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


def test_a_release_killed_under_load_fails_no_request(settings, table):
    """kill -9 of its processes: requests wait until it is back, or are retried."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    statuses: list[int] = []
    over = threading.Event()

    def send() -> None:
        with gateway_client(settings) as http:
            while not over.is_set():
                statuses.append(http.post("/v1/predict/small", json=body).status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert wait_for(lambda: len(statuses) > 50)
        name = release_program_name("small", table.digest)
        killed = Supervisor(settings.state).processes()[name]["pid"]
        kill_all(killed)
        answered = len(statuses)
        assert wait_for(lambda: len(statuses) > answered + 50, 150)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert Supervisor(settings.state).processes()[name]["pid"] != killed
    assert set(statuses) == {200}


def test_a_killed_gateway_loses_no_record(settings, store, table, tmp_path):
    """Every answer that came has its entry in the ledger; the log's lines are found by the next gateway."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    port, answered = free_port(), []
    with (
        gateway(settings, port, tmp_path / "log") as process,
        gateway_client(settings.model_copy(update={"gateway_port": port})) as http,
    ):
        for _ in range(20):
            answered.append(http.post("/v1/predict/small", json=body).json()["request_id"])
        logged_count = len(answered)
        time.sleep(1.2)
        (worker,) = worker_processes(process.pid)
        threading.Timer(0.3, kill_all, [process.pid]).start()
        try:
            while True:
                answered.append(http.post("/v1/predict/small", json=body).json()["request_id"])
        except httpx.TransportError:
            pass
        worker.wait(10)  # its connections end before its lock on the log does
    with store.reading() as connection:
        states = dict(
            connection.execute(
                select(usage_records.c.id, usage_records.c.state).where(usage_records.c.id.in_(answered))
            ).all()
        )
    assert {states.get(id_) for id_ in answered} == {"done"}
    folder = settings.state / "gateway" / "requests"
    recover_log(folder)
    logged = {id_ for path in folder.rglob("*.parquet") for id_ in pq.read_table(path)["id"].to_pylist()}
    assert set(answered[:logged_count]) <= logged


def test_a_killed_worker_loses_only_its_own_calls(settings, table, tmp_path):
    """kill -9 of a worker: new connections wait for the next worker, since the supervisor holds the socket."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    port, outcomes, over = free_port(), [], threading.Event()
    config = settings.model_copy(update={"gateway_port": port})

    def send() -> None:
        while not over.is_set():
            try:
                with gateway_client(config) as http:
                    outcomes.append(http.post("/v1/predict/small", json=body).status_code)
            except httpx.TransportError as error:
                outcomes.append(repr(error))

    with gateway(settings, port, tmp_path / "log") as process:
        (worker,) = worker_processes(process.pid)
        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert wait_for(lambda: len(outcomes) > 40)
            worker.suspend()
            time.sleep(1)  # so that it is killed while it is asked whether it lives
            worker.kill()
            answered = len(outcomes)
            assert wait_for(lambda: len(outcomes) > answered + 40, 60)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert process.poll() is None
        assert worker_processes(process.pid) != [worker]
    lost = [each for each in outcomes if each != 200]
    assert len(lost) <= 4, lost


def test_a_terminated_gateway_ends_its_calls_first(settings, talker, tmp_path):
    """SIGTERM within a stream: its last piece still comes."""
    port = free_port()
    body = {
        "model": "talker",
        "messages": [{"role": "user", "content": "Tell a story."}],
        "stream": True,
        "max_tokens": 60,
    }
    body["response_format"] = {"type": "text"}
    with (
        gateway(settings, port, tmp_path / "log") as process,
        gateway_client(settings.model_copy(update={"gateway_port": port})) as http,
    ):
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.terminate()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(15) in (0, -signal.SIGTERM)


def test_a_killed_model_ends_its_stream_with_an_error(settings, store, talker):
    """The client gets an error event, and the record has the usage."""
    body = {"model": "talker", "messages": [{"role": "user", "content": "Count to one thousand."}], "stream": True}
    body |= {"response_format": {"type": "text"}, "max_tokens": 400}
    name = release_program_name("talker", talker.digest)
    with gateway_client(settings) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        kill_all(Supervisor(settings.state).processes()[name]["pid"])
        last = [line for line in lines if line][-1]
    assert "error" in json.loads(last.removeprefix("data: "))
    with store.reading() as connection:
        of_it = usage_records.c.id == answer.headers["x-request-id"]
        assert connection.execute(select(usage_records.c.state).where(of_it)).scalar() == "failed"
    with gateway_client(settings) as http:
        request = {"model": "talker", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
        assert http.post("/v1/chat/completions", json=request).status_code == 200, "it is back, or waited for"


def test_the_log_has_no_personal_data(settings, store, talker):
    """By the platform's setting, which is to mask."""
    request = {"model": "talker", "messages": [{"role": "user", "content": "I am ann@example.org"}], "max_tokens": 4}
    with gateway_client(settings) as http:
        http.post("/v1/chat/completions", json=request)
    folder: Path = settings.state / "gateway" / "requests"
    assert wait_for(lambda: any("[EMAIL]" in path.read_text() for path in folder.glob("*.jsonl")), 5)
    assert not any("ann@example" in path.read_text() for path in folder.glob("*.jsonl"))
