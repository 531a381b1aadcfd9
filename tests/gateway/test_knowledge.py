"""Promise: through the gateway, a key gets the passages of its labels and no others, the cache included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import select

from services.gateway.request_log import reading_log
from services.rollout.shares import ShareSpec, promote, remove_share, set_share
from services.serving.package import package
from services.store.database import Store, usage_records
from services.store.keys import create_key, set_key_labels
from tasks.core.settings import ROOT, Settings
from tasks.data.language.source_tables import read_rows
from tasks.knowledge.labels import LABELS_HEADER
from tasks.release.results import Release
from tests.gateway.stack import gateway_client, guarded_gateway, serve
from tests.knowledge_release import ABSTAIN, PAGES, knowledge_release
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

WAGE = "How many crowns does the captain earn?"
FOOD = "What does a cat eat?"


@pytest.fixture(scope="module")
def pets(settings: Settings, state: Path) -> Release:
    """The champion of a case with a knowledge base, in a real Bento; pages of crew and pay need a label."""
    folder = knowledge_release(state, answer_by="extract")
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    return serve(settings, folder)


@pytest.fixture(scope="module")
def guarded(settings: Settings, pets: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Another gateway in front of it, with keys."""
    with guarded_gateway(settings, tmp_path_factory.mktemp("guarded")) as config:
        yield config


@pytest.fixture(scope="module")
def own(guarded: Settings) -> Iterator[Store]:
    store = Store(guarded)
    yield store
    store.close()


@pytest.fixture(scope="module")
def clients(guarded: Settings, own: Store) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Of two keys of one team, the second with the label pay."""
    secrets = []
    for labels in ([], ["pay"]):
        id_, secret = create_key(own, "team", ["predict"], None, None, None)
        set_key_labels(own, id_, labels)
        secrets.append(secret)
    with gateway_client(guarded, secrets[0]) as open_, gateway_client(guarded, secrets[1]) as pay:
        for client in (open_, pay):
            assert wait_for(lambda client=client: client.get("/v1/models").status_code != 401, 3)
        yield open_, pay


def chat(client: httpx.Client, question: str, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    request = {"model": "pets", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}
    response = client.post("/v1/chat/completions", json=request, headers=headers or {})
    assert response.is_success, response.text
    return dict(response.json())


def content(response: dict[str, Any]) -> str:
    return str(response["choices"][0]["message"]["content"])


def search(client: httpx.Client, query: str, case: str = "pets", **more: Any) -> httpx.Response:
    return client.post(f"/v1/search/{case}", json={"query": query, **more})


def test_a_passage_of_another_label_reaches_nobody_else(clients):
    """In an answer, its passages and a search; not even from the cache that the other key of the team has filled."""
    open_, pay = clients
    assert "4711" in content(chat(pay, WAGE))
    assert "4711" in search(pay, WAGE).text
    for _ in range(2):
        refused, found = chat(open_, WAGE, include_passages=True), search(open_, WAGE)
        assert content(refused) == ABSTAIN
        assert "4711" not in json.dumps(refused) + found.text
        assert "pay.md" not in json.dumps(refused) + found.text
        assert "4711" in content(chat(pay, WAGE))
    assert found.headers["x-driftline-cache"] == "hit"
    assert search(pay, WAGE).headers["x-driftline-cache"] == "hit"


@pytest.mark.parametrize("labels", ["pay", "*", "crew,pay"])
def test_a_client_can_not_choose_its_labels(clients, labels):
    """The header of the gateway is the gateway's own; neither does a field of the body help."""
    open_, _ = clients
    headers = {LABELS_HEADER: labels}
    assert content(chat(open_, WAGE, headers, seed=7)) == ABSTAIN
    found = open_.post("/v1/search/pets", json={"query": WAGE, "count": 40}, headers=headers)
    assert found.is_success
    assert "4711" not in found.text
    assert search(open_, WAGE, labels=["pay"]).json()["error"]["param"] == "labels"


def test_labels_of_a_key_change_at_once(guarded, own):
    id_, secret = create_key(own, "team", ["predict"], None, None, None)
    with gateway_client(guarded, secret) as client:
        assert wait_for(lambda: client.get("/v1/models").is_success, 3)
        assert content(chat(client, WAGE)) == ABSTAIN
        set_key_labels(own, id_, ["pay"])
        assert wait_for(lambda: "4711" in content(chat(client, WAGE)), 3)
        set_key_labels(own, id_, [])
        assert wait_for(lambda: content(chat(client, WAGE)) == ABSTAIN, 3)


def test_the_owner_of_the_installation_sees_all(settings, pets):
    """No key yet: only its own user can send a request at all."""
    with gateway_client(settings) as client:
        assert "4711" in content(chat(client, WAGE))


def test_openais_client_reads_answers_and_streams(settings, pets):
    """Citations are further fields of its own types; a stream has them in its last choice."""
    address = f"http://127.0.0.1:{settings.gateway_port}/v1"
    ai: Any = openai.OpenAI(base_url=address, api_key="none needed", max_retries=0, timeout=60)
    messages = [{"role": "user", "content": FOOD}]
    extra = {"include_passages": True}
    answer = ai.chat.completions.create(model="pets", messages=messages, extra_body=extra)
    assert "fish and meat" in answer.choices[0].message.content
    (citation, *_) = answer.choices[0].message.citations
    assert citation["url"] == "https://example.com/open.md#food"
    assert answer.passages[0]["document"] == "open/open.md"
    parts = list(ai.chat.completions.create(model="pets", messages=messages, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == answer.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == "stop"
    assert parts[-1].choices[0].delta.citations == answer.choices[0].message.citations
    assert not any(part.usage for part in parts)  # only on request


def test_a_search_is_recorded_and_paid_as_a_call(settings, pets, store):
    """Usage record, request log and metrics name the passages and the outcome; the price is by the query's tokens."""
    with gateway_client(settings) as client:
        id_ = search(client, "Where do boats float?", count=2).headers["x-request-id"]
        answered = client.post(
            "/v1/chat/completions",
            json={"model": "pets", "messages": [{"role": "user", "content": "Who won the cup in Brazil?"}]},
        ).headers["x-request-id"]
        metrics = client.get("/metrics").text
    with store.reading() as connection:
        rows = {row.id: row for row in connection.execute(select(usage_records))}
    row = rows[id_]
    assert (row.interface, row.state, row.case, row.tokens_out) == ("search", "done", "pets", 0)
    assert row.price == 1000 * row.tokens_in > 0
    assert len(row.retrieval["passages"]) == 2
    assert rows[answered].retrieval["abstained"] is True
    assert rows[answered].retrieval["similarity"] < 0.5
    for outcome in ("passages", "abstained"):
        assert f'driftline_retrievals_total{{case="pets",outcome="{outcome}"' in metrics
    folder = settings.state / "gateway" / "requests"

    def logged() -> list[dict[str, Any]]:
        with reading_log(folder) as db:
            return read_rows(db, "SELECT * FROM logged WHERE id = $1", [id_])

    assert wait_for(lambda: bool(logged()), 5)
    (line,) = logged()
    assert json.loads(line["retrieval"]) == row.retrieval
    assert json.loads(line["request"])["query"] == "Where do boats float?"


def test_a_search_follows_the_rollout(settings, pets, state, store):
    """A canary answers its share, a pinned release its own name, and an unknown case is 404."""
    changed = PAGES | {"open": PAGES["open"].replace("fish and meat", "cheese")}
    folder = knowledge_release(state, pages=changed, answer_by="extract")
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    canary = serve(settings, folder, champion=False)
    set_share(store, "pets", ShareSpec(canary.digest, "canary", 50.0), "for a test")
    try:
        with gateway_client(settings) as client:

            def releases() -> set[str]:
                users = [search(client, FOOD, user=f"user {i}").json()["release"] for i in range(20)]
                return set(users)

            assert wait_for(lambda: releases() == {pets.digest, canary.digest}, 10)
            for release, food in ((pets, "fish and meat"), (canary, "cheese")):
                found = search(client, FOOD, case=f"pets:{release.digest[:12]}")
                assert found.headers["x-driftline-release"] == release.digest
                assert food in found.json()["results"][0]["text"]
            assert search(client, FOOD, case="none").status_code == 404
            assert search(client, "").status_code == 400
    finally:
        remove_share(store, "pets", canary.digest, "for a test")


def test_what_a_document_no_longer_says_leaves_all_answers(settings, pets, state, store):
    """From the next release on: chats, streams, searches, and what the cache stored of the release before."""
    changed = PAGES | {"open": PAGES["open"].replace("fish and meat", "cheese")}
    folder = knowledge_release(state, pages={**changed, "crew": "# Boats\n\nNothing.\n"}, answer_by="extract")
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    corrected = serve(settings, folder, champion=False)
    sails = "What is the area of the jib sail?"

    def answers(client: httpx.Client) -> str:
        messages = [{"role": "user", "content": FOOD}]
        stream = client.post("/v1/chat/completions", json={"model": "pets", "messages": messages, "stream": True})
        return json.dumps([chat(client, FOOD), chat(client, sails)]) + search(client, sails).text + stream.text

    with gateway_client(settings) as client:
        for _ in range(2):  # the second ones come from the cache
            before = answers(client)
            assert "fish and meat" in before
            assert "12 square metres" in before
        promote(store, "pets", corrected.digest, "for a test")
        try:
            assert wait_for(lambda: client.get("/readyz").json()["champions"]["pets"] == corrected.digest, 5)
            after = answers(client)
            assert "cheese" in after
            assert "fish and meat" not in after
            assert "12 square metres" not in after
        finally:
            promote(store, "pets", pets.digest, "for a test")
            assert wait_for(lambda: client.get("/readyz").json()["champions"]["pets"] == pets.digest, 5)


def test_a_release_with_a_damaged_index_does_not_start(settings, pets, state):
    """Its log names the part; the champion goes on."""
    from services.serving.package import bento_folder
    from services.serving.process import serve_bento
    from tasks.core.errors import Unavailable

    bento = shutil.copytree(bento_folder(state / "bentoml", pets.bento), state / "damaged" / "pets" / "x")
    with (bento / "src" / "knowledge" / "vectors.npy").open("ab") as file:
        file.write(b"x")
    log = state / "damaged.log"
    with pytest.raises(Unavailable, match="could not start") as error, serve_bento(bento, {}, log):
        pass
    assert "knowledge index differs from what was sealed" in error.value.found + log.read_text()
    with gateway_client(settings) as client:
        assert "fish and meat" in content(chat(client, FOOD, seed=3))
