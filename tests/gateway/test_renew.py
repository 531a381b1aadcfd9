"""Restarting everything after an upgrade: who asks does not notice."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from flows.deployed.servers import servers
from services.gateway.rolling_restart import rolling_restart
from services.runtime import stack
from services.runtime.process_specs import GATEWAY
from tests.gateway.small import answering_of, asking
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


def processes(settings) -> dict[str, set[int]]:
    """Of each program those that answer: its own, or, of the gateway, those behind the one that holds the socket."""
    pids = {service.name: service.pid for service in stack.list_services(settings)}
    return {name: {each.pid for each in answering_of(pid)} if name == GATEWAY else {pid} for name, pid in pids.items()}


def test_no_call_fails_while_everything_is_restarted(settings, table, other):
    """Every process is another one afterwards, and every call in between was answered, by kept connections and new."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    url, said, over = f"http://127.0.0.1:{settings.gateway_port}/v1/predict/small", [], threading.Event()

    def ask(kept: bool) -> None:
        while not over.is_set():
            try:
                with asking(settings) as http:
                    while not over.wait(0.02):  # so that it doesn't take the time in which all is restarted
                        said.append(http.post(url, json=body).status_code)
                        if not kept:
                            break
            except httpx.TransportError as error:
                said.append(repr(error))

    clients = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
    before = processes(settings)
    for client in clients:
        client.start()
    try:
        assert wait_for(lambda: len(said) > 50)
        told: list[str] = []
        rolling_restart(settings, servers(settings), told.append)
        during = len(said)
    finally:
        over.set()
        for client in clients:
            client.join()
    after = processes(settings)
    assert sorted(told) == sorted(before) == sorted(after)
    assert not [name for name, those in after.items() if those & before[name]]
    assert during > 100
    assert set(said) == {200}, [each for each in said if each != 200]
