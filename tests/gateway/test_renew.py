"""Restarting everything after an upgrade: who asks does not notice."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from tasks.gateway.renew import renew
from tasks.serve import stack
from tests.gateway.small import asking
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


def test_no_call_fails_while_everything_is_restarted(settings, table, other):
    """Every process is another one afterwards, and every call in between was answered, by kept connections and new."""
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    url, said, over = f"http://127.0.0.1:{settings.gateway_port}/v1/predict/small", [], threading.Event()

    def ask(kept: bool) -> None:
        while not over.is_set():
            try:
                with asking(settings) as http:
                    while not over.is_set():
                        said.append(http.post(url, json=body).status_code)
                        if not kept:
                            break
            except httpx.TransportError as error:
                said.append(repr(error))

    clients = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
    before = {service.name: service.pid for service in stack.state(settings)}
    for client in clients:
        client.start()
    try:
        assert wait_for(lambda: len(said) > 50)
        told: list[str] = []
        renew(settings, told.append)
        during = len(said)
    finally:
        over.set()
        for client in clients:
            client.join()
    after = {service.name: service.pid for service in stack.state(settings)}
    assert sorted(told) == sorted(before) == sorted(after)
    assert not [name for name, pid in after.items() if pid == before[name]]
    assert during > 100
    assert set(said) == {200}, [each for each in said if each != 200]
