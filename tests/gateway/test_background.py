"""Promise: nothing that a person or a client writes stops a background loop, or delays the others."""

from __future__ import annotations

import ast
import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from services.rollout.plan import advance_plans, begin_plan
from services.rollout.shares import promote, upsert_release
from services.store.database import DONE, Store, alert_outbox, plans, predictions, usage_records
from services.store.keys import create_key, revoke_key
from tasks.core.loops import TaskLoop, ThreadLoop, loops
from tasks.core.settings import ROOT
from tests.gateway.in_process import call_of, in_process_gateway, loop_named, settings_of, until
from tests.rollout.plans import PLAN

FLOORS = ("cli", "flows", "services", "tasks")
NAMES = {
    "keys",
    "routes",
    "heartbeat",
    "lost calls",
    "rollouts",
    "alerts",
    "ledger",
    "log",
    "budgets",
    "delivery to Prefect",
    "release health",
}
GOOD, BAD = "a" * 64, "b" * 64


class Absurd(Exception):
    """An unexpected error."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(settings_of(tmp_path))) as store:
        yield store


def test_each_loop_survives_and_the_others_work(tmp_path: Path, store: Store):
    """An exception in any loop is counted, reported and alerted; a key is revoked meanwhile, and it goes on."""
    asyncio.run(break_each(tmp_path, store))


async def break_each(state: Path, store: Store) -> None:
    async with in_process_gateway(settings_of(state)) as (gateway, client):
        assert {loop.name for loop in loops} == NAMES
        for loop in loops:
            loop.interval, loop.max_backoff = 0.02, 0.1  # a test can't wait as long as operators can
        for name in sorted(NAMES):
            loop, before = loop_named(name), loop_named(name).failures
            good = loop.step
            loop.step = raise_absurd if isinstance(loop, ThreadLoop) else raise_absurd_later
            await use(gateway)
            gateway.outbox.notify()  # wakes it
            await until(lambda loop=loop, before=before: loop.failures > before + 2, 60)
            ready = (await client.get("/readyz")).json()
            assert name in {each["name"] for each in ready["failing_loops"]}
            if name != "keys":
                id_, secret = create_key(store, "team", ["predict"], None, None, None)
                headers = {"authorization": f"Bearer {secret}"}
                await until(lambda: gateway.config_cache.keyring.guarded)
                await wait_status(client, headers, 200)
                revoke_key(store, id_)
                await wait_status(client, headers, 401)
            loop.step = good
            gateway.outbox.notify()
            await until(lambda loop=loop: not loop.is_failing, 60)
            assert f'driftline_loop_failures_total{{loop="{name}"}}' in gateway.metrics.text().decode()
        await use(gateway)
        await until(lambda: settled(store))
        subjects = [row["event"]["payload"]["subject"] for row in rows(store, alert_outbox)]
        for name in NAMES - {"alerts"}:
            assert sum(repr(name) in subject for subject in subjects) == 1, name
        assert (await client.get("/readyz")).status_code == 200


def raise_absurd() -> None:
    raise Absurd("unexpected")


async def raise_absurd_later() -> None:
    raise_absurd()


async def use(gateway: Any) -> None:
    """Record and log a call, without waiting for it."""
    call = call_of()
    await gateway.metering.begin(call, 10, {})
    task = asyncio.create_task(gateway.metering.end(call, DONE, 200))
    await asyncio.sleep(0.1)
    gateway.waiting_for = [*getattr(gateway, "waiting_for", []), task]


def settled(store: Store) -> bool:
    states = {row["state"] for row in rows(store, usage_records)}
    return states == {DONE}


async def wait_status(client: Any, headers: dict[str, str], status: int) -> None:
    for _ in range(300):
        if (await client.get("/v1/models", headers=headers)).status_code == status:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"no {status}")


def test_every_thread_and_task_is_supervised(tmp_path: Path):
    """In a running gateway every thread and task whose code is ours is a loop of the registry."""
    asyncio.run(list_all(tmp_path))


async def list_all(state: Path) -> None:
    before = set(threading.enumerate())
    async with in_process_gateway(settings_of(state)):
        supervised = {loop.thread for loop in loops if isinstance(loop, ThreadLoop)}
        project_threads = {thread for thread in set(threading.enumerate()) - before if is_project_code(code_of(thread))}
        assert project_threads == supervised
        running = {loop.task for loop in loops if isinstance(loop, TaskLoop)}
        assert {task for task in asyncio.all_tasks() if is_project_code(task.get_coro().cr_code.co_filename)} == running


def code_of(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    return target.__code__.co_filename if hasattr(target, "__code__") else ""


def is_project_code(path: str) -> bool:
    return path.startswith(tuple(str(ROOT / floor) for floor in FLOORS))


def test_threads_and_tasks_are_started_by_loops():
    """Whatever starts one stands in this list, with the reason why it is no loop."""
    allowed = {
        "tasks/core/loops.py",  # what all others use
        "services/gateway/shadow.py",  # one copy of one call; its errors are caught and logged
        "services/gateway/guard_rules.py",  # reads a release's rules; the calls that wait for it get its error
        "services/gateway/streaming.py",  # within one request, which waits for them
        "services/serving/fork_server.py",  # waits for one process to end, and ends with it
        "services/serving/engine_client.py",  # within one request of several answers, whose group ends with it
        "services/serving/disconnect.py",  # a call and its client, which both end with the call
        "tasks/search/budget.py",  # records the time that a search has spent, and ends with it
        "tasks/search/fork_server.py",  # waits for one measurement to end, and ends with it
        "tasks/search/tracking.py",  # shows trials in MLflow while a search runs, which waits for it
        "cli/search.py",  # ends a command whose budget goes into preparing
        "cli/terminal.py",  # draws a line while a command runs
        "flows/deployed/worker.py",  # Prefect's own worker, which this program is about: it ends with it
    }
    starts = {"Thread", "Timer", "create_task", "ensure_future"}
    found = set()
    for path in [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in starts:
                found.add(str(path.relative_to(ROOT)))
    assert found <= allowed


ABSURD: list[Any] = [10**400, -(10**350), "1e999", "nan", "inf", None, [1], {}, True, "x" * 1000, 1e308]


@pytest.mark.parametrize("label", ABSURD, ids=lambda value: str(value)[:20])
def test_an_absurd_label_in_the_store_stops_no_plan(store: Store, label: Any):
    """A store of an earlier version may hold it: the plan is judged without it."""
    begin_rollout(store, "shop")
    answer(store, "req-1", "shop", {"label": label}, {"": 1})
    assert advance_plans(store) == {}


def test_a_plan_that_fails_stops_no_other(store: Store):
    for name in ("broken", "shop"):
        begin_rollout(store, name)
        for number in range(40):
            answer(store, f"{name}-{number}", name, {"label": 2}, {"": 1})
    with store.writing() as connection:
        connection.execute(update(plans).where(plans.c.case == "broken").values(plan={}))
    assert list(advance_plans(store)) == ["broken"]
    assert {row["case"] for row in rows(store, plans)} == {"broken"}  # the other went back


KEY = "id, hash, team, roles, rpm, tpm, created_at, revoked_at"
POISON = [
    "INSERT INTO shares VALUES ('ghost', 'nowhere', 'champion', 100, '')",
    "INSERT INTO shares VALUES ('headless', '{bad}', 'canary', 10, '')",
    "INSERT INTO shares VALUES ('endless', '{bad}', 'champion', 9e999, '')",
    "INSERT INTO releases VALUES ('c', 'shop2', '{{not json')",
    'INSERT INTO releases VALUES (\'e\', \'shop3\', \'{{"kind": "tabular", "price": {{"tokens_in": -1}}}}\')',
    "INSERT INTO releases VALUES ('f', 'shop4', '[]')",
    "INSERT INTO endpoints VALUES ('{bad}', 'no address')",
    f"INSERT INTO keys ({KEY}) VALUES ('k1', 'h1', 'team', 'null', NULL, NULL, 0, NULL)",
    f"INSERT INTO keys ({KEY}) VALUES ('k2', 'h2', 'team', '7', NULL, NULL, 0, 1)",
    "INSERT INTO plans VALUES ('shop', '{bad}', '{{\"steps\": []}}', 0, 0, 0)",
    "INSERT INTO plans VALUES ('other', '{bad}', 'null', -7, 9e999, 0)",
    "INSERT INTO feedback (request_id, at, team, key, payload) VALUES ('r', 0, 't', 'k', '[[[')",
    "INSERT INTO predictions VALUES ('r', '7')",
    "INSERT INTO webhook_deliveries VALUES ('d', 'b', 0, '{{}}', NULL)",
    "INSERT INTO alert_outbox VALUES ('x', 9e999, '{{}}')",
    "INSERT INTO alert_outbox VALUES ('y', 0, 'no json')",
]


def test_unusable_rows_do_not_stop_the_gateway(tmp_path: Path, store: Store):
    """Each is left out and reported; the good case, and the good key, are served."""
    for digest in (GOOD, BAD):
        upsert_release(store, {"digest": digest, "sealed": {"case": "shop", "kind": "tabular"}})
    promote(store, "shop", GOOD, "a test")
    _, secret = create_key(store, "team", ["predict"], None, None, None)
    with store.changing() as connection:
        for statement in POISON:
            connection.execute(text(statement.format(bad=BAD).replace(":", "\\:")))
    ready = asyncio.run(readiness(tmp_path, secret))
    assert ready["status"] == "ready"
    assert ready["champions"]["shop"] == GOOD
    assert {"ghost", "headless", "endless"} & set(ready["champions"]) == set()
    left_out = "\n".join(ready["left_out"])
    for what in ("ghost", "headless", "endless", "shop2", "shop3", "shop4"):
        assert what in left_out
    assert {loop["name"] for loop in ready["failing_loops"]} == {"rollouts"}


async def readiness(state: Path, secret: str) -> dict[str, Any]:
    async with in_process_gateway(settings_of(state)) as (_, client):
        await until(lambda: loop_named("rollouts").failures > 1)
        headers = {"authorization": f"Bearer {secret}"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        return dict(answer.json())


def begin_rollout(store: Store, name: str) -> None:
    champion, canary = (name[0] + letter + "0" * 62 for letter in "xy")
    for digest in (champion, canary):
        upsert_release(store, {"digest": digest, "sealed": {"case": name, "kind": "tabular"}})
    promote(store, name, champion, "a test")
    begin_plan(store, name, canary, PLAN)


def answer(store: Store, id_: str, name: str, payload: Any, classes: Any) -> None:
    """A call that the canary has answered, and feedback on it, past all checks."""
    call = call_of()
    row = {name: getattr(call, name) for name in ("interface", "status", "retries", "tokens_in", "tokens_cached")}
    row |= {"tokens_out": 0, "engine_seconds": 0.0, "seconds": 0.0, "price": 0, "saved": 0, "reserved": 0}
    row |= {"at": time.time(), "day": 0, "worker": "w", "team": "t", "key": "k", "role": "canary", "budgets": []}
    with store.writing() as connection:
        connection.execute(
            insert(usage_records).values(id=id_, case=name, digest=name[0] + "y" + "0" * 62, state=DONE, **row)
        )
        connection.execute(insert(predictions).values(request_id=id_, classes=classes))
        connection.execute(
            text("INSERT INTO feedback (request_id, at, team, key, payload) VALUES (:id, 0, 't', 'k', :said)"),
            {"id": id_, "said": json.dumps(payload)},
        )


def rows(store: Store, table: Any) -> list[Any]:
    with store.reading() as connection:
        return list(connection.execute(select(table)).mappings().all())
