"""Rollouts through real gateways: shares, shadows, rolling back under load, two processes that agree."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest
from sqlalchemy import select

from services.rollout import history, shares
from services.rollout.champion_sync import ensure_running
from services.runtime import stack
from services.runtime.process_specs import FORKS
from services.runtime.supervision import Supervisor
from services.serving.process import free_port
from services.store.database import Store, now, usage_records
from tasks.core.errors import InputError
from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import gateway, gateway_client, kill_all
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


@pytest.fixture
def body(table: Release) -> dict:
    return {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}


@pytest.fixture(autouse=True)
def as_it_was(store: Store, table: Release, other: Release) -> Iterator[None]:
    yield
    for share in history.rollout_history(store, "small")[0]:
        if share["role"] != "champion":
            shares.remove_share(store, "small", share["digest"], "the test is over")
    shares.promote(store, "small", table.digest, "the test is over")


def answered_by(http: httpx.Client, body: dict, entity: str = "") -> str:
    answer = http.post("/v1/predict/small", json=body, headers={"x-entity": entity})
    assert answer.status_code == 200, answer.text
    assert answer.json()["release"] == answer.headers["x-driftline-release"]
    return answer.json()["release"]


def test_a_canary_gets_its_share_of_sticky_entities(settings, store, table, other, body):
    shares.set_share(store, "small", shares.ShareSpec(other.digest, "canary", 30), "a test")
    with gateway_client(settings) as http:
        both = {table.digest, other.digest}  # else the gateway may not have read yet that an earlier test is over
        assert wait_for(lambda: {answered_by(http, body, f"p{i}") for i in range(20)} == both)
        time.sleep(1)  # the end of an earlier test's shares and the beginning of this one's may be two looks
        twice = [[answered_by(http, body, f"person {i}") for i in range(100)] for _ in range(2)]
    assert twice[0] == twice[1]
    assert 15 <= Counter(twice[0])[other.digest] <= 45


def test_the_rows_own_key_keeps_a_person_at_a_release(settings, store, table, other, body):
    """Without a header the join keys of the row say whom it is about."""
    shares.set_share(store, "small", shares.ShareSpec(other.digest, "arm", 50, "blue"), "a test")
    with gateway_client(settings) as http:

        def arms() -> list[str]:
            rows = [{"rows": [{**body["rows"][0], "origin": f"airport {i}", "distance": 100 + i}]} for i in range(30)]
            return [http.post("/v1/predict/small", json=row).headers.get("x-driftline-arm", "") for row in rows]

        assert wait_for(lambda: "blue" in arms(), 5)
        found = arms()
        assert found == arms()
    assert 4 <= found.count("blue") <= 26


def test_a_shadow_gets_copies_and_answers_nobody(settings, store, table, other, body):
    """Its calls are in the ledger as a shadow's; every client is answered by the champion."""
    shares.set_share(store, "small", shares.ShareSpec(other.digest, "shadow", 100), "a test")
    began = now()

    def shadowed() -> int:
        """Since the share was given: other tests had shadows, too."""
        with store.reading() as connection:
            of_it = (
                usage_records.c.digest == other.digest,
                usage_records.c.role == "shadow",
                usage_records.c.state == "done",
            )
            return len(connection.execute(select(usage_records.c.id).where(*of_it, usage_records.c.at >= began)).all())

    earlier = shadowed()
    with gateway_client(settings) as http:
        assert wait_for(lambda: answered_by(http, body, "first") == table.digest and shadowed() > earlier)
        before = shadowed()
        assert {answered_by(http, body, str(i)) for i in range(10)} == {table.digest}
    assert wait_for(lambda: shadowed() >= before + 10)


@contextmanager
def load(settings: Settings, body: dict, clients: int) -> Iterator[tuple[list[tuple[float, str, float]], list[str]]]:
    """Clients that ask all the while: when each call began, who answered it, when it ended; and what failed."""
    answers: list[tuple[float, str, float]] = []
    failures: list[str] = []
    over = threading.Event()

    def send() -> None:
        with gateway_client(settings) as http:
            while not over.is_set():
                begun = time.monotonic()
                try:
                    answers.append((begun, answered_by(http, body), time.monotonic()))
                except (AssertionError, httpx.HTTPError) as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers, failures
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_rolling_back_under_load_fails_no_request(settings, store, table, other, body):
    """5,000 requests over 16 connections while the champion changes back and forth; each change holds within 2 s."""
    shares.promote(store, "small", other.digest, "a test")
    changes: list[tuple[float, str, float]] = []  # when each began, the champion after it, when it was over
    with load(settings, body, 16) as (answers, failures):
        while len(answers) < 5000 and not failures:
            time.sleep(3)
            started = time.monotonic()
            champion = shares.rollback(store, "small", None, "a test")
            changes.append((started, champion, time.monotonic()))
        time.sleep(2.5)
    assert not failures
    assert len(answers) >= 5000
    ends = [*(started for started, _, _ in changes[1:]), time.monotonic()]
    for (_, champion, since), until in zip(changes, ends, strict=True):
        assert {release for begun, release, ended in answers if since + 2 < begun and ended < until} <= {champion}


def test_rolling_back_to_a_release_that_runs_no_more(settings, store, table, other, body):
    """Under load no request fails; its process is a fork, which imports nothing that takes time; so is the next."""
    supervisor = Supervisor(settings.state)
    shares.promote(store, "small", table.digest, "a test")
    time.sleep(shares.PROPAGATION_SECONDS)
    stack.retire_releases(settings, "small", [table.digest])
    shares.sync_endpoints(store, settings)
    assert not history.is_running(store, other.digest)
    forks = psutil.Process(supervisor.processes()[FORKS]["pid"])
    before = set(forks.children())
    with load(settings, body, 4) as (answers, failures):
        assert wait_for(lambda: len(answers) > 20)
        begun = time.monotonic()
        shares.rollback(store, "small", ensure_running(store, "small", other.digest[:12], settings), "a test")
        took = time.monotonic() - begun
        assert wait_for(lambda: answers[-1][1] == other.digest, 5)
        (fork,) = set(forks.children()) - before
        fork.kill()
        answered = len(answers)
        assert wait_for(lambda: len(answers) > answered + 20, 60)
    assert not failures
    assert took < 20, "some 0.5 s on idle cores; without a fork 4 s"


def test_two_gateways_agree_also_after_a_kill(settings, store, table, other, body, tmp_path):
    """Both follow a change within 2 s; kill -9 loses no route."""
    port = free_port()
    second = settings.model_copy(update={"gateway_port": port})
    with (
        gateway(settings, port, tmp_path / "log") as process,
        gateway_client(settings) as a,
        gateway_client(second) as b,
    ):
        shares.promote(store, "small", other.digest, "a test")
        assert wait_for(lambda: answered_by(a, body) == answered_by(b, body) == other.digest, 2)
        shares.rollback(store, "small", table.digest, "a test")
        assert wait_for(lambda: answered_by(a, body) == answered_by(b, body) == table.digest, 2)
        shares.set_share(store, "small", shares.ShareSpec(other.digest, "canary", 50), "a test")
        time.sleep(1.5)
        people = [f"person {i}" for i in range(40)]
        assert [answered_by(a, body, p) for p in people] == [answered_by(b, body, p) for p in people]
        before = [answered_by(b, body, p) for p in people]
        kill_all(process.pid)
    with gateway(settings, port, tmp_path / "log"), gateway_client(second) as b:
        assert [answered_by(b, body, p) for p in people] == before


def test_invalid_rollouts_are_refused(store, table, other):
    with pytest.raises(InputError, match="sum to more than 100"):
        shares.set_share(store, "small", shares.ShareSpec(other.digest, "canary", 101), "a test")
    with pytest.raises(InputError, match="already champion"):
        shares.set_share(store, "small", shares.ShareSpec(table.digest, "canary", 5), "a test")
    with pytest.raises(InputError, match="No process serves"):
        shares.rollback(store, "small", "f" * 64, "a test")
    with pytest.raises(InputError, match="nowhere has no earlier champion"):
        shares.rollback(store, "nowhere", None, "a test")
