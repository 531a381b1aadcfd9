"""Restarting everything after an upgrade without failing a call."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from flows.deployed.servers import servers
from services.gateway.rolling_restart import rolling_restart
from services.runtime import stack
from services.runtime.process_specs import GATEWAY
from tests.gateway.stack import gateway_client, worker_processes
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


def processes(settings) -> dict[str, set[int]]:
    """The processes that answer: each program's own, and the workers of the gateway."""
    pids = {service.name: service.pid for service in stack.list_services(settings)}
    return {
        name: {each.pid for each in worker_processes(pid)} if name == GATEWAY else {pid} for name, pid in pids.items()
    }


def test_no_call_fails_while_everything_is_restarted(settings, table, other):
    """Every process is replaced, and every call is answered, on keep-alive and on new connections."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    url, outcomes, over = f"http://127.0.0.1:{settings.gateway_port}/v1/predict/small", [], threading.Event()

    def send(keep_alive: bool) -> None:
        while not over.is_set():
            try:
                with gateway_client(settings) as http:
                    while not over.wait(0.02):  # so that it doesn't take the time in which all is restarted
                        outcomes.append(http.post(url, json=body).status_code)
                        if not keep_alive:
                            break
            except httpx.TransportError as error:
                outcomes.append(repr(error))

    clients = [threading.Thread(target=send, args=(number % 2 == 0,)) for number in range(6)]
    before = processes(settings)
    for client in clients:
        client.start()
    try:
        assert wait_for(lambda: len(outcomes) > 50)
        restarted: list[str] = []
        rolling_restart(settings, servers(settings), restarted.append)
        during = len(outcomes)
    finally:
        over.set()
        for client in clients:
            client.join()
    after = processes(settings)
    assert sorted(restarted) == sorted(before) == sorted(after)
    assert not [name for name, those in after.items() if those & before[name]]
    assert during > 100
    assert set(outcomes) == {200}, [each for each in outcomes if each != 200]
