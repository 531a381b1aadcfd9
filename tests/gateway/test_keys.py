"""Who may ask, and how much: a gateway with keys, in front of the same releases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from sqlalchemy import select

from services.store.database import Store, budgets, usage_records
from services.store.keys import create_key, read_keyring, revoke_key, set_team_limits
from tasks.core.settings import Settings
from tasks.release.config import NANO
from tasks.release.results import Release
from tests.gateway.stack import gateway_client, guarded_gateway
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@pytest.fixture(scope="module")
def guarded(settings: Settings, table: Release, talker: Release, tmp_path_factory) -> Iterator[Settings]:
    with guarded_gateway(settings, tmp_path_factory.mktemp("guarded")) as config:
        yield config


@pytest.fixture(scope="module")
def own(guarded: Settings) -> Iterator[Store]:
    store = Store(guarded)
    yield store
    store.close()


def create_known_key(own: Store, settings: Settings, team: str, role: str = "predict", **limits: float) -> str:
    """A key that the gateway knows already."""
    options = {"rpm": None, "tpm": None, "budget": None} | limits
    _, secret = create_key(own, team, [role, "feedback"], **options)
    with gateway_client(settings, secret) as http:
        assert wait_for(lambda: http.get("/v1/models").status_code != 401, 3)
    return secret


def test_requests_without_a_key_are_refused(guarded):
    """401 in OpenAI's form for none and a wrong one, 403 for a role that the key lacks; health is for everybody."""
    with gateway_client(guarded) as http:
        assert http.get("/healthz").is_success
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
            answer = http.post("/v1/predict/small", json={}, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"


def test_a_key_may_what_its_roles_say(guarded, own):
    secret = create_known_key(own, guarded, "readers", role="feedback")
    with gateway_client(guarded, secret) as http:
        answer = http.post("/v1/predict/small", json={})
        assert answer.status_code == 403
        assert "lacks the role predict" in answer.json()["error"]["message"]


def test_secrets_are_stored_nowhere(guarded, own):
    """Only a hash is in the database's files; and a revoked key opens nothing within a second."""
    id_, secret = create_key(own, "a", ["predict"], None, None, None)
    for path in guarded.state.rglob("gateway.db*"):
        assert secret.encode() not in path.read_bytes()
    with gateway_client(guarded, secret) as http:
        assert wait_for(lambda: http.get("/v1/models").is_success, 3)
        revoke_key(own, id_)
        assert wait_for(lambda: http.get("/v1/models").status_code == 401, 2)
    assert read_keyring(own).guarded


def test_requests_and_tokens_are_limited(guarded, own):
    """By key and by team: 429 that says when to come again; the official client raises what it should."""
    secret = create_known_key(own, guarded, "slow", rpm=3)
    with gateway_client(guarded, secret) as http:
        answers = [http.post("/v1/chat/completions", json=HELLO) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    secret = create_known_key(own, guarded, "brief", tpm=100)
    ai = openai.OpenAI(base_url=f"http://127.0.0.1:{guarded.gateway_port}/v1", api_key=secret, max_retries=0)
    ai.chat.completions.create(**HELLO)
    with pytest.raises(openai.RateLimitError, match="100 tokens a minute"):
        ai.chat.completions.create(**HELLO | {"max_tokens": 90})
    set_team_limits(own, "both", 2, None, None)
    secrets = [create_known_key(own, guarded, "both") for _ in range(2)]
    statuses = []
    for secret in (*secrets, *secrets):
        with gateway_client(guarded, secret) as http:
            statuses.append(http.post("/v1/chat/completions", json=HELLO).status_code)
    assert statuses == [200, 200, 429, 429]


def test_concurrent_calls_stay_within_the_budget(guarded, own):
    """Reserved before, settled after: what was spent never passes the budget, and every call has its entry."""
    id_, secret = create_key(own, "thrifty", ["predict"], None, None, budget=0.0015)
    body = HELLO | {"max_tokens": 20, "response_format": {"type": "text"}}
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(
        headers={"authorization": f"Bearer {secret}"}, limits=limits, timeout=60, trust_env=False
    ) as http:
        url = f"http://127.0.0.1:{guarded.gateway_port}/v1"
        assert wait_for(lambda: http.get(f"{url}/models").is_success, 3)
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _: http.post(f"{url}/chat/completions", json=body), range(100)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = answers[statuses.index(429)]
    assert refused.json()["error"]["code"] in ("budget_reserved", "insufficient_quota")
    with own.reading() as connection:
        budget = connection.execute(select(budgets).where(budgets.c.owner == f"key:{id_}")).mappings().one()
        entries = connection.execute(select(usage_records).where(usage_records.c.key == id_)).mappings().all()
    assert len(entries) == 100
    assert {entry["state"] for entry in entries} == {"done", "refused"}
    assert budget["reserved"] == 0
    assert 0 < budget["spent"] == sum(entry["price"] for entry in entries) <= 0.0015 * NANO


def test_streams_are_paid_from_the_budget(guarded, own):
    """Ten at once, streamed: each is answered, and budget and ledger agree."""
    id_, secret = create_key(own, "streaming", ["predict"], None, None, budget=0.01)
    body = HELLO | {"max_tokens": 10, "stream": True, "response_format": {"type": "text"}}
    with gateway_client(guarded, secret) as http:
        assert wait_for(lambda: http.get("/v1/models").is_success, 3)
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: http.post("/v1/chat/completions", json=body), range(10)))
    assert all(answer.text.rstrip().endswith("data: [DONE]") for answer in answers)
    with own.reading() as connection:
        budget = connection.execute(select(budgets).where(budgets.c.owner == f"key:{id_}")).mappings().one()
        entries = connection.execute(select(usage_records).where(usage_records.c.key == id_)).mappings().all()
    assert [entry["state"] for entry in entries] == ["done"] * 10
    assert (budget["spent"], budget["reserved"]) == (sum(entry["price"] for entry in entries), 0)


def test_teams_never_share_cached_answers(guarded, own):
    """The same request of another team is forwarded again; one of the same team is not."""
    body = HELLO | {"temperature": 0, "max_tokens": 5}
    first, second = (create_known_key(own, guarded, team) for team in ("one", "two"))
    hits = []
    for secret in (first, first, second):
        with gateway_client(guarded, secret) as http:
            hits.append(http.post("/v1/chat/completions", json=body).headers.get("x-driftline-cache"))
    assert hits == [None, "hit", None]


def test_feedback_is_for_the_teams_own_calls(guarded, own):
    mine, other_team = (create_known_key(own, guarded, team) for team in ("mine", "theirs"))
    with gateway_client(guarded, mine) as http:
        id_ = http.post("/v1/chat/completions", json=HELLO).headers["x-request-id"]
        assert http.post(f"/v1/feedback/{id_}", json={"thumbs": "up"}).status_code == 201
    with gateway_client(guarded, other_team) as http:
        assert http.post(f"/v1/feedback/{id_}", json={"thumbs": "up"}).status_code == 404


def test_without_any_key_only_this_machine_may_ask(settings, table):
    """But not through a proxy, or from a web page."""
    with gateway_client(settings) as http:
        for headers in ({"x-forwarded-for": "8.8.8.8"}, {"forwarded": "for=8.8.8.8"}, {"origin": "https://a.example"}):
            answer = http.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert "driftline keys create" in json.loads(answer.content)["error"]["message"]
