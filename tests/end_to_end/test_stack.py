"""With the local stack up: the champion answers over HTTP, through a failed gate, until another one has taken over."""

from __future__ import annotations

import json
from contextlib import closing

import httpx
import pytest
from sqlalchemy import delete

from services.rollout.shares import sync_endpoints
from services.runtime.stack import retire_releases
from services.store.database import Store, endpoints
from tasks.core.mlflow import Tracking
from tasks.core.settings import Settings
from tasks.core.sockets import http_client
from tasks.release.registry import load_champion
from tests.end_to_end.small import change_case
from tests.end_to_end.terminal import Terminal, World
from tests.waiting import wait_for


def served(terminal: Terminal, world: World) -> dict[str, str]:
    """The address of each release that is ready, by its name."""
    services = json.loads(terminal.run(world, "status --json").output)["services"]
    return {s["name"]: s["address"] for s in services if s["state"] == "ready" and s["name"].startswith("release-")}


def answer(world: World, address: str) -> dict:
    """What a release says of its first golden example, beside what it said offline."""
    release = load_champion(Tracking.in_folder(world.state), world.state, "diabetes")
    golden = json.loads((release.folder / "golden.json").read_text())[0]
    row = {"example_id": golden["example_id"], **golden["features"]}
    with http_client(address, timeout=30) as client:
        response = client.post("/predict", json={"rows": [row]})
    body = response.raise_for_status().json()
    assert body["predictions"][0]["prediction"] == pytest.approx(golden["prediction"], rel=1e-12)
    return body


def is_answered(world: World) -> bool:
    try:
        return bool(at_gateway(world))
    except httpx.HTTPStatusError:
        return False


def at_gateway(world: World) -> str:
    """The digest of the release that answers at the gateway."""
    release = load_champion(Tracking.in_folder(world.state), world.state, "diabetes")
    row = json.loads((release.folder / "golden.json").read_text())[0]["features"]
    url = f"http://127.0.0.1:{world.variables['DRIFTLINE_GATEWAY_PORT']}/v1/predict/diabetes"
    answer = httpx.post(url, json={"rows": [row]}, trust_env=False, verify=False, timeout=30).raise_for_status()
    return answer.json()["release"]


def test_up_serves_the_champion_of_an_earlier_run(stack, terminal):
    """No further run is needed, nor is one after `down` and another `up`."""
    digest = stack.champion("diabetes")
    for _ in range(2):
        assert wait_for(lambda: is_answered(stack), 10), "the gateway sees within a second what has changed"
        assert at_gateway(stack) == digest
        assert list(served(terminal, stack)) == [f"release-diabetes-{digest[:12]}"]
        with closing(Store(Settings(state=stack.state))) as store, store.changing() as to:
            to.execute(delete(endpoints))
        assert retire_releases(Settings(state=stack.state), "diabetes", [])
        done = terminal.run(stack, "up")
        assert done.code == 0, done.output


def test_the_champion_serves_until_another_one_has_taken_over(stack, terminal):
    """A rejected challenger changes nothing; a promoted one replaces it; one goes back to it though it was stopped."""
    done = terminal.run(stack, "run diabetes")
    assert done.code == 0, done.output
    ((first, address),) = served(terminal, stack).items()
    digest = stack.champion("diabetes")
    assert first == f"release-diabetes-{digest[:12]}"
    assert answer(stack, address)["release"] == at_gateway(stack) == digest

    folder = stack.cases / "diabetes"
    bounds = [{"metric": "r2", "at_least": 0.3}]
    change_case(folder, train__parameters={"alpha": 500.0}, evaluate__bounds=bounds)
    assert terminal.run(stack, "run diabetes").code == 3
    assert served(terminal, stack) == {first: address}
    assert answer(stack, address)["release"] == digest

    change_case(folder, train__parameters={"alpha": 0.11})
    done = terminal.run(stack, "run diabetes")
    assert done.code == 0, done.output
    assert stack.champion("diabetes") != digest
    later = stack.champion("diabetes")
    running = served(terminal, stack)
    assert set(running) == {first, f"release-diabetes-{later[:12]}"}
    assert answer(stack, running[f"release-diabetes-{later[:12]}"])["release"] == later
    assert at_gateway(stack) == later

    config = Settings(state=stack.state)
    assert retire_releases(config, "diabetes", [later]) == [first]
    with closing(Store(config)) as store:
        sync_endpoints(store, config)
    done = terminal.run(stack, "rollback diabetes")
    assert done.code == 0, done.output
    assert at_gateway(stack) == stack.champion("diabetes") == digest
    shown = terminal.run(stack, "rollout diabetes").output
    assert "rollback" in shown
    assert digest[:12] in shown
    spent = json.loads(terminal.run(stack, "costs --by release --json").output)
    assert {row["release"] for row in spent} == {digest, later, "training"}, "training was for no release yet"
    assert terminal.run(stack, "keys create --team flat --budget 1").code == 0
    assert "flat" in terminal.run(stack, "keys list").output
