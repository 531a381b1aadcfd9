"""Two gateways with one real Postgres and one real Redis behind them, as on two machines: they act as one."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from services.gateway.usage_writer import UsageWriter
from services.rollout import history, shares
from services.rollout.config import Plan
from services.rollout.plan import advance_plans, begin_plan
from services.serving.process import free_port
from services.store.costs import summarize_costs
from services.store.database import Store, budgets, usage_records
from services.store.keys import create_key, revoke_key, set_team_limits
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import Settings
from tasks.release.config import NANO
from tasks.release.results import Release
from tests.gateway.stack import copy_routes, gateway, gateway_client
from tests.gateway.test_usage_writer import call_of
from tests.postgres import Postgres, running_postgres
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The address of this test's own Redis; empty if none is installed."""
    program = shutil.which("redis-server")
    if not program:
        yield ""
        return
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as output:
        process = subprocess.Popen(with_parent_death_signal(command), stdout=output, stderr=output)
    assert wait_for(lambda: "Ready to accept connections" in (folder / "redis.log").read_text())
    yield f"redis://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def two(settings: Settings, table, other, talker, postgres, tmp_path_factory) -> Iterator[list[Settings]]:
    """Two gateways that share only the servers; both create the tables at the same time."""
    folder = tmp_path_factory.mktemp("two")
    with ExitStack() as running:
        options = {"gateway_store": postgres.url, "gateway_limits": running.enter_context(redis(folder))}
        gateways = [Settings(state=folder / name, gateway_port=free_port(), **options) for name in ("a", "b")]
        with ThreadPoolExecutor(2) as both:
            for store in both.map(Store, gateways):
                store.close()
        copy_routes(settings, gateways[0])
        with closing(Store(gateways[0])) as own:
            create_key(own, "nobody", ["feedback"], None, None, None)
        for each in gateways:
            running.enter_context(gateway(each, each.gateway_port, folder / f"{each.gateway_port}.log"))
        yield gateways


@pytest.fixture
def own(two: list[Settings]) -> Iterator[Store]:
    with closing(Store(two[0])) as store:
        yield store


@contextmanager
def both(two: list[Settings], secret: str) -> Iterator[list[httpx.Client]]:
    """A client of each, once they know the key."""
    with gateway_client(two[0], secret) as a, gateway_client(two[1], secret) as b:
        assert wait_for(lambda: a.get("/v1/models").is_success and b.get("/v1/models").is_success)
        yield [a, b]


@pytest.fixture
def body(table: Release) -> dict:
    return {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}


def test_two_gateways_share_routes_keys_and_records(two, own, table, other, body):
    """A change holds at both within 2 s; what one has answered, the other knows; a revoked key opens neither."""
    id_, secret = create_key(own, "team", ["predict", "feedback"], None, None, None)
    with both(two, secret) as clients:

        def serving_releases() -> set[str]:
            return {http.post("/v1/predict/small", json=body).json()["release"] for http in clients}

        shares.promote(own, "small", other.digest, "a test")
        assert wait_for(lambda: serving_releases() == {other.digest}, 2)
        assert shares.rollback(own, "small", table.digest, "a test") == table.digest
        assert wait_for(lambda: serving_releases() == {table.digest}, 2)
        request_id = clients[0].post("/v1/predict/small", json=body).json()["request_id"]
        assert clients[1].post(f"/v1/feedback/{request_id}", json={"label": 1}).status_code == 201
        for strange in ("req-none", "%00", "%ED%A0%80"):
            assert clients[1].post(f"/v1/feedback/{strange}", json={"label": 1}).status_code == 404
        assert clients[1].post(f"/v1/feedback/{request_id}", content=b'{"label": 1e999}').status_code == 400
        revoke_key(own, id_)
        assert wait_for(lambda: {http.get("/v1/models").status_code for http in clients} == {401}, 2)
    with own.reading() as connection:
        entries = connection.execute(select(usage_records).where(usage_records.c.key == id_)).mappings().all()
    assert {entry["state"] for entry in entries} == {"done"}
    assert len({entry["worker"] for entry in entries}) == 2
    for by in ("team", "case", "release", "day"):
        assert sum(row["calls"] for row in summarize_costs(own, by)) == len(entries)


def test_two_usage_writers_never_deadlock(two, own):
    """Entries for the same purses in opposite order, again and again: Postgres has to end no transaction."""
    owners = [f"key:{create_key(own, 'many', ['predict'], None, None, 1)[0]}" for _ in range(20)]

    async def enter(writer: UsageWriter, order: list[str]) -> None:
        for _ in range(10):
            calls = [call_of(own) for _ in order]
            for call, owner in zip(calls, order, strict=True):
                call.key = replace(call.key, budgets=(owner,))
            await asyncio.gather(*map(writer.open, calls))

    def work(name: str, order: list[str]) -> None:
        with closing(Store(two[0])) as store, closing(UsageWriter(store, name)) as writer:
            asyncio.run(enter(writer, order))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ("up", "down"), (owners, owners[::-1])))


def test_calls_at_both_stay_within_the_budget(two, own):
    """Of a team with two keys, each with a budget: no budget is overspent, and no call waits for ever."""
    set_team_limits(own, "thrifty", None, None, 0.0015)  # first: then gateways learn it before the keys
    ids, secrets = zip(
        *(create_key(own, "thrifty", ["predict"], None, None, budget=0.001) for _ in range(2)), strict=True
    )
    request = HELLO | {"max_tokens": 20, "response_format": {"type": "text"}}
    with both(two, secrets[0]), both(two, secrets[1]), httpx.Client(timeout=60, trust_env=False) as http:
        ways = cycle((s.gateway_port, secret) for s in two for secret in secrets)

        def send(way: tuple[int, str]) -> int:
            url, headers = f"http://127.0.0.1:{way[0]}/v1/chat/completions", {"authorization": f"Bearer {way[1]}"}
            return http.post(url, json=request, headers=headers).status_code

        with ThreadPoolExecutor(100) as pool:
            statuses = list(pool.map(send, (next(ways) for _ in range(100))))
    assert set(statuses) == {200, 429}
    with own.reading() as connection:
        held = {row["owner"]: row for row in connection.execute(select(budgets)).mappings()}
        entries = connection.execute(select(usage_records).where(usage_records.c.key.in_(ids))).mappings().all()
    assert len(entries) == 100
    assert {entry["state"] for entry in entries} == {"done", "refused"}
    team, keys = held["team:thrifty"], [held[f"key:{id_}"] for id_ in ids]
    assert [purse["reserved"] for purse in (team, *keys)] == [0, 0, 0]
    assert 0 < team["spent"] == sum(entry["price"] for entry in entries) <= 0.0015 * NANO
    assert team["spent"] == sum(purse["spent"] for purse in keys)
    assert all(purse["spent"] <= 0.001 * NANO for purse in keys)


def test_limits_are_counted_together(two, own):
    """Six a minute are six, through either of the two."""
    if not two[0].gateway_limits:
        pytest.skip("no redis-server is installed")
    _, secret = create_key(own, "slow", ["predict"], 6, None, None)
    with both(two, secret) as clients:
        answers = [http.post("/v1/chat/completions", json=HELLO) for http in clients * 4]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


def test_a_plan_is_decided_once(two, own, table, other, body):
    """Two gateways and eight others look at once, again and again: one of them makes the new release the champion."""
    plan = Plan.model_validate({"steps": [{"percent": 50, "requests": 10}], "failed": 0.5, "slow": 0.9, "slow_s": 30})
    _, secret = create_key(own, "people", ["predict"], None, None, None)
    begin_plan(own, "small", other.digest, plan)
    with both(two, secret) as clients, ThreadPoolExecutor(8) as others:

        def ask_and_look() -> bool:
            for number, http in enumerate(clients * 10):
                answer = http.post("/v1/predict/small", json=body, headers={"x-entity": f"person {number}"})
                assert answer.status_code == 200
            list(others.map(advance_plans, [own] * 8))
            return len(history.rollout_history(own, "small")[0]) == 1

        assert wait_for(ask_and_look, 60)
    (share,), moved = history.rollout_history(own, "small")
    assert share["digest"] == other.digest
    assert [move["action"] for move in moved][:2] == ["promote", "canary"]
    assert [move["action"] for move in moved if "calls:" in move["reason"]] == ["promote"]
    shares.promote(own, "small", table.digest, "the test is over")


def test_calls_are_refused_without_the_database(two, own, postgres, body):
    """Without the database calls are refused, with when to come again; and once it is back, they are answered."""
    _, secret = create_key(own, "patient", ["predict"], None, None, None)
    own.close()
    with both(two, secret) as clients:
        postgres.stop()
        try:
            for http in clients:
                answer = http.post("/v1/predict/small", json=body)
                assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                assert http.get("/healthz").is_success
        finally:
            postgres.start()
        for http in clients:
            assert wait_for(lambda http=http: http.post("/v1/predict/small", json=body).status_code == 200)
