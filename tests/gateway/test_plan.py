"""Rollouts by plan: decided by intervals that hold at every look, and gone back from by themselves."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from functools import cache

import pytest

from services.rollout import history, shares
from services.rollout.config import Plan
from services.rollout.plan import begin_plan, decide_step
from services.runtime import stack
from services.serving.package import bento_folder
from services.store.database import Store
from tasks.core.settings import Settings
from tasks.release.results import Release
from tasks.release.seal import read_manifest
from tasks.statistics.confidence_sequence import BinomialSequence
from tests.gateway.stack import gateway_client
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

PLAN = Plan.model_validate(
    {"steps": [{"percent": 0, "requests": 20}, {"percent": 50, "requests": 40}], "failed": 0.3, "slow": 0.9}
)
NONE = {"failed": BinomialSequence(), "slow": BinomialSequence(), "disliked": BinomialSequence()}


def test_intervals_hold_at_all_looks_together():
    """Looked at after every one of 500 events, the interval misses the truth in at most alpha of 400 runs."""
    chance, missed = random.Random(0), 0
    interval = cache(lambda hits, seen: BinomialSequence(hits, seen).interval(0.1))
    for _ in range(400):
        hits, out = 0, False
        for seen in range(1, 501):
            hits += chance.random() < 0.1
            if seen % 5 == 0 and not out:
                low, high = interval(hits, seen)
                out = not low <= 0.1 <= high
        missed += out
    assert missed <= 40
    low, high = BinomialSequence(1000, 10_000).interval(0.1)
    assert 0.08 < low < 0.1 < high < 0.12, "and it is narrow where much is known"


def test_decisions_have_reasons():
    """Surely worse than allowed or than the champion: back; surely allowed and seen enough: on; else wait."""
    good = NONE | {"failed": BinomialSequence(0, 100), "slow": BinomialSequence(0, 100)}
    assert decide_step(PLAN, 0, 100, good, good).action == "on"
    assert decide_step(PLAN, 0, 5, good, good).action == "wait"
    assert decide_step(PLAN, 0, 5, NONE, good).action == "wait"
    few = decide_step(PLAN, 0, 5, NONE | {"failed": BinomialSequence(1, 5), "slow": BinomialSequence(0, 5)}, good)
    assert few.reason == "5 calls; too few to decide on: failed; about 336 are needed if that stays so"
    bad = decide_step(PLAN, 0, 30, good | {"failed": BinomialSequence(25, 30)}, good)
    assert (bad.action, bad.reason) == ("back", "25 of 30 calls failed: more than the 30% allowed")
    assert (
        decide_step(
            PLAN, 0, 300, good | {"failed": BinomialSequence(60, 300)}, good | {"failed": BinomialSequence(0, 300)}
        ).action
        == "back"
    )
    assert decide_step(PLAN, 0, 100, good | {"disliked": BinomialSequence(40, 40)}, good).action == "back"


@pytest.fixture
def broken(settings: Settings, store: Store, other: Release) -> Iterator[Release]:
    """A release that starts well, and then fails on every request."""
    bentos = settings.state / "bentoml"
    source, target = bento_folder(bentos, other.bento), bento_folder(bentos, "small:broken")
    shutil.copytree(source, target, dirs_exist_ok=True)
    service = target / "src" / "services" / "serving" / "tabular_release.py"
    original = "answer = await _inline_or_thread(self._predict, complete, wait=len(complete.ids) > self._inline_rows)"
    assert original in service.read_text()
    service.write_text(service.read_text().replace(original, "raise RuntimeError('deliberately bad')"))
    release = other.model_copy(update={"digest": "b" * 64, "bento": "small:broken"})
    stack.serve_release(settings, release)
    shares.upsert_release(store, read_manifest(other.folder) | {"digest": release.digest})
    shares.sync_endpoints(store, settings)
    yield release
    stack.stop_release(settings, release)


@pytest.fixture
def body(table) -> dict:
    return {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}


def send(settings, body, until) -> list[int]:
    """Ask as different people until something has happened."""
    statuses: list[int] = []
    with gateway_client(settings) as http:

        def once() -> bool:
            headers = {"x-entity": f"person {len(statuses)}"}
            statuses.append(http.post("/v1/predict/small", json=body, headers=headers).status_code)
            return until()

        assert wait_for(once, 60)
    return statuses


def test_a_good_release_takes_over_by_plan(settings, store, table, other, body):
    """As a shadow, then half of the people, then all: without anybody's help."""
    begin_plan(store, "small", other.digest, PLAN)
    statuses = send(settings, body, lambda: history.rollout_history(store, "small")[0][0]["digest"] == other.digest)
    assert set(statuses) == {200}
    newest = [move["action"] for move in history.rollout_history(store, "small")[1][:3]]
    assert newest == ["promote", "canary", "shadow"]
    shares.promote(store, "small", table.digest, "the test is over")


def test_a_bad_release_is_rolled_back_by_itself(settings, store, table, broken, body):
    """A canary that only fails loses its share before many have met it, and the rollout says why."""
    begin_plan(store, "small", broken.digest, PLAN.model_copy(update={"steps": PLAN.steps[1:]}))
    statuses = send(settings, body, lambda: len(history.rollout_history(store, "small")[0]) == 1)
    assert 0 < statuses.count(502) < len(statuses)
    held, moved = history.rollout_history(store, "small")
    assert held[0]["digest"] == table.digest
    assert moved[0]["action"] == "rolled back"
    assert "failed: more than the 30% allowed" in moved[0]["reason"]
    with gateway_client(settings) as http:

        def statuses_of_all() -> set[int]:
            people = ({"x-entity": f"person {i}"} for i in range(10))
            return {http.post("/v1/predict/small", json=body, headers=who).status_code for who in people}

        assert wait_for(lambda: statuses_of_all() == {200}), "nobody meets it any more; now it may end"


def test_wrong_predictions_roll_a_release_back(settings, store, table, other, body):
    """It answers as fast and as surely as the champion; only the outcomes tell, joined by request and row."""
    step = Plan.model_validate({"steps": [{"percent": 50, "requests": 5000}], "failed": 0.3, "slow": 0.9})
    begin_plan(store, "small", other.digest, step)
    row, count = {**body["rows"][0], "example_id": "a"}, 0

    def outcome(digest: str, predicted: int) -> int:
        return 1 - predicted if digest == other.digest else predicted

    with gateway_client(settings) as http:

        def rolled_back() -> bool:
            nonlocal count
            count += 1
            rows = {"rows": [row, {**row, "example_id": "b"}][: 1 + count % 2]}
            response = http.post("/v1/predict/small", json=rows, headers={"x-entity": f"person {count}"}).json()
            for each in response["predictions"]:
                label = {"label": outcome(response["release"], each["prediction"]), "example_id": each["example_id"]}
                answer = http.post(f"/v1/feedback/{response['request_id']}", json=label)
                assert answer.status_code == 201, answer.text
            return len(history.rollout_history(store, "small")[0]) == 1

        assert wait_for(rolled_back, 60)
    held, (moved, *_) = history.rollout_history(store, "small")
    assert (held[0]["digest"], moved["action"]) == (table.digest, "rolled back")
    assert "disliked" in moved["reason"]
