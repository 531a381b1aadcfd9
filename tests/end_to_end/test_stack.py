"""With the local stack up: the champion answers over HTTP, through a failed gate, until another one has taken over."""

from __future__ import annotations

import json
from contextlib import closing

import httpx
import pytest

from tasks.foundation.settings import Settings
from tasks.foundation.tracking import Tracking
from tasks.ledger.store import Store
from tasks.release.process import free_port
from tasks.release.registry import champion
from tasks.rollout.shares import follow_stack
from tasks.serve import stack
from tests.end_to_end.small import change_case, make_case
from tests.end_to_end.terminal import Terminal, World


@pytest.fixture
def up(tmp_path, terminal: Terminal, prefect_server):
    """A world whose stack runs: MLflow and the releases; Prefect's server is the tests' own."""
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("MLFLOW", "GATEWAY", "WORKER")}
    variables = {"DRIFTLINE_PREFECT_URL": prefect_server, **ports}
    world = World(tmp_path, tmp_path / "cases", variables)
    make_case(world.cases)
    done = terminal.run(world, "up")
    assert done.code == 0, done.output
    yield world
    assert terminal.run(world, "down").code == 0


def served(terminal: Terminal, world: World) -> dict[str, str]:
    """The address of each release that is ready, by its name."""
    services = json.loads(terminal.run(world, "status --json").output)["services"]
    return {s["name"]: s["address"] for s in services if s["state"] == "ready" and s["name"].startswith("release-")}


def answer(world: World, address: str) -> dict:
    """What a release says of its first golden example, beside what it said offline."""
    release = champion(Tracking.under(world.state), world.state, "diabetes")
    golden = json.loads((release.folder / "golden.json").read_text())[0]
    row = {"example_id": golden["example_id"], **golden["features"]}
    said = httpx.post(f"{address}/predict", json={"rows": [row]}, trust_env=False, timeout=30).raise_for_status().json()
    assert said["predictions"][0]["prediction"] == pytest.approx(golden["prediction"], rel=1e-12)
    return said


def at_gateway(world: World) -> str:
    """The digest of the release that answers at the gateway."""
    release = champion(Tracking.under(world.state), world.state, "diabetes")
    row = json.loads((release.folder / "golden.json").read_text())[0]["features"]
    url = f"http://127.0.0.1:{world.variables['DRIFTLINE_GATEWAY_PORT']}/v1/predict/diabetes"
    answer = httpx.post(url, json={"rows": [row]}, trust_env=False, timeout=30).raise_for_status()
    return answer.json()["release"]


def test_the_champion_serves_until_another_one_has_taken_over(up, terminal):
    """A rejected challenger changes nothing; a promoted one replaces it; one goes back to it though it was stopped."""
    done = terminal.run(up, "run diabetes")
    assert done.code == 0, done.output
    ((first, address),) = served(terminal, up).items()
    digest = up.champion("diabetes")
    assert first == f"release-diabetes-{digest[:12]}"
    assert answer(up, address)["release"] == at_gateway(up) == digest

    folder = up.cases / "diabetes"
    bounds = [{"metric": "r2", "at_least": 0.3}]
    change_case(folder, train__parameters={"alpha": 500.0}, evaluate__bounds=bounds)
    assert terminal.run(up, "run diabetes").code == 3
    assert served(terminal, up) == {first: address}
    assert answer(up, address)["release"] == digest

    change_case(folder, train__parameters={"alpha": 0.2})
    done = terminal.run(up, "run diabetes")
    assert done.code == 0, done.output
    assert up.champion("diabetes") != digest
    later = up.champion("diabetes")
    running = served(terminal, up)
    assert set(running) == {first, f"release-diabetes-{later[:12]}"}
    assert answer(up, running[f"release-diabetes-{later[:12]}"])["release"] == later
    assert at_gateway(up) == later

    here = Settings(state=up.state)
    assert stack.retire(here, "diabetes", [later]) == [first]
    with closing(Store(here)) as store:
        follow_stack(store, here)
    done = terminal.run(up, "rollback diabetes")
    assert done.code == 0, done.output
    assert at_gateway(up) == up.champion("diabetes") == digest
    shown = terminal.run(up, "rollout diabetes").output
    assert "rollback" in shown
    assert digest[:12] in shown
    spent = json.loads(terminal.run(up, "costs --by release --json").output)
    assert {row["release"] for row in spent} == {digest, later, "training"}, "training was for no release yet"
    assert terminal.run(up, "keys create --team home --budget 1").code == 0
    assert "home" in terminal.run(up, "keys list").output
