"""Promise: a release answers from its passages, with citations; what no passage supports is never sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.serving.chat_app import ChatApp
from services.serving.knowledge import KnowledgeBase
from services.serving.retrieval import RETRIEVAL_HEADER, parse_retrieval
from tasks.core.errors import DriftlineError
from tasks.knowledge.labels import EVERY, LABELS_HEADER
from tasks.language.released_model import ReleasedModel
from tests.knowledge_release import ABSTAIN, knowledge_release
from tests.serving.small_chat import body, chat_service

FOOD = "What does a cat eat?"
SAILS = "What is the area of the jib sail?"
UNKNOWN = "Who won the football match in Brazil last summer?"


@pytest.fixture(scope="module")
def extractive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knowledge_release(tmp_path_factory.mktemp("extract"), answer_by="extract")


@pytest.fixture(scope="module")
def extract(extractive: Path) -> Iterator[tuple[ChatApp, httpx.Client]]:
    with chat_service(extractive) as service:
        yield service


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with chat_service(knowledge_release(tmp_path_factory.mktemp("model"))) as (_, client):
        yield client


def answer(client: httpx.Client, question: str, labels: str = "", **more: Any) -> httpx.Response:
    response = client.post("/v1/chat/completions", json=body(question, **more), headers={LABELS_HEADER: labels})
    assert response.is_success, response.text
    return response


def message(response: httpx.Response) -> dict[str, Any]:
    result: dict[str, Any] = response.json()["choices"][0]["message"]
    return result


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def saying(*texts: str) -> dict[str, Any]:
    """A format by which the model says one of these texts, in quotation marks."""
    schema = {"name": "answer", "schema": {"type": "string", "enum": list(texts)}}
    return {"response_format": {"type": "json_schema", "json_schema": schema}, "max_tokens": 60}


def test_an_extractive_answer_asks_no_engine(extract):
    """There is none: the sentence of the passage, and where it stands."""
    app, client = extract
    assert (app.ready, app.watch.ready) == (True, False)
    response = answer(client, FOOD)
    found = message(response)
    assert "fish and meat" in found["content"]
    assert found["citations"][0] | {"passage_id": ""} == {
        "document": "open/open.md",
        "title": "Cats",
        "heading": "Food",
        "url": "https://example.com/open.md#food",
        "passage_id": "",
    }
    assert "passages" not in response.json()
    assert response.json()["usage"]["completion_tokens"] == 0
    retrieval = parse_retrieval(response.headers[RETRIEVAL_HEADER])
    assert retrieval.cited == tuple(each["passage_id"] for each in found["citations"])
    assert set(retrieval.cited) <= set(retrieval.passages)
    assert (retrieval.abstained, retrieval.grounded, retrieval.outcome) == (False, None, "passages")
    assert 0.3 < retrieval.similarity <= 1


def test_without_an_answer_in_the_passages_it_abstains(extract):
    response = answer(extract[1], UNKNOWN, EVERY)
    assert message(response) == {"role": "assistant", "content": ABSTAIN, "citations": []}
    assert parse_retrieval(response.headers[RETRIEVAL_HEADER]).outcome == "abstained"


@pytest.mark.parametrize(("labels", "sees"), [("", False), ("pay", False), ("crew,pay", True), (EVERY, True)])
def test_passages_of_other_labels_are_not_there(extract, labels, sees):
    """Neither in answers, passages and searches, nor in what is recorded."""
    _, client = extract
    response = answer(client, SAILS, labels, include_passages=True)
    found = client.post("/v1/search", json={"query": SAILS, "count": 50}, headers={LABELS_HEADER: labels})
    for each in (response, found):
        assert ("12 square" in each.text) == sees
        assert ("crew/crew.md" in each.text) == sees
    assert (message(response)["content"] == ABSTAIN) != sees
    assert [each["document"] for each in found.json()["results"]].count("crew/crew.md") == (2 if sees else 0)


def test_the_passages_come_on_request(extract):
    response = answer(extract[1], FOOD, include_passages=True)
    best = response.json()["passages"][0]
    assert best["document"] == "open/open.md"
    assert {"text", "score", "similarity", "passage_id", "url"} <= set(best)


def test_a_search_returns_passages_with_their_scores(extract):
    for method in (None, "hybrid", "words", "vectors"):
        response = extract[1].post("/v1/search", json={"query": FOOD, "count": 1, "method": method})
        (result,) = response.json()["results"]
        assert "fish and meat" in result["text"]
        assert result["heading"] == "Food"
        assert parse_retrieval(response.headers[RETRIEVAL_HEADER]).passages == (result["passage_id"],)
        assert response.json()["usage"]["prompt_tokens"] > 5


@pytest.mark.parametrize(
    ("request_body", "field"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": 5}, "query"),
        ({"query": "a" * 4001}, "query"),
        ({"query": "a", "count": 0}, "count"),
        ({"query": "a", "count": 51}, "count"),
        ({"query": "a", "method": "magic"}, "method"),
        ({"query": "a", "labels": ["crew"]}, "labels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_search_is_refused_by_name(extract, request_body, field):
    response = extract[1].post("/v1/search", json=request_body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_a_grounded_answer_of_the_model_is_sent(model):
    response = answer(model, FOOD, include_passages=True, **saying("A cat eats fish and meat, 2 times a day."))
    assert "fish and meat" in message(response)["content"]
    assert message(response)["citations"][0]["heading"] == "Food"
    assert response.json()["passages"]
    assert response.json()["usage"]["completion_tokens"] > 5
    retrieval = parse_retrieval(response.headers[RETRIEVAL_HEADER])
    assert (retrieval.grounded, retrieval.abstained) == (True, False)


def test_an_ungrounded_answer_never_reaches_the_client(model):
    """A number that stands in no passage: the abstention instead, whole and streamed."""
    form = saying("A cat eats 4711 mice.")
    response = answer(model, FOOD, logprobs=True, **form)
    assert message(response) == {"role": "assistant", "content": ABSTAIN, "citations": []}
    assert "logprobs" not in response.json()["choices"][0]
    retrieval = parse_retrieval(response.headers[RETRIEVAL_HEADER])
    assert (retrieval.grounded, retrieval.abstained, retrieval.outcome) == (False, True, "ungrounded")
    streamed = answer(model, FOOD, stream=True, **form)
    assert "4711" not in streamed.text
    assert events(streamed)[0]["choices"][0]["delta"]["content"] == ABSTAIN


def test_a_checked_stream_has_openais_form(model):
    """The text, then the end with the citations, then the usage if it is requested."""
    wanted = {"stream": True, "include_passages": True, "stream_options": {"include_usage": True}}
    response = answer(model, FOOD, **wanted, **saying("A cat eats fish and meat, 2 times a day."))
    assert response.headers["content-type"].startswith("text/event-stream")
    text, last, usage = events(response)
    assert "fish" in text["choices"][0]["delta"]["content"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["delta"]["citations"][0]["heading"] == "Food"
    assert last["passages"][0]["document"] == "open/open.md"
    assert (usage["choices"], usage["usage"]["completion_tokens"] > 5) == ([], True)
    assert {each["object"] for each in (text, last, usage)} == {"chat.completion.chunk"}


def test_an_unchecked_answer_streams_token_by_token(tmp_path):
    """With `grounded: false`; its citations come with the end all the same."""
    with chat_service(knowledge_release(tmp_path, grounded=False)) as (_, client):
        response = answer(client, FOOD, stream=True, **saying("A cat eats fish and meat, 2 times a day."))
    parts = events(response)
    texts = [choice["delta"].get("content") or "" for part in parts for choice in part["choices"]]
    assert len([text for text in texts if text]) > 3
    assert "fish and meat" in "".join(texts)
    (last,) = [choice for part in parts for choice in part["choices"] if choice.get("finish_reason")]
    assert last["delta"]["citations"][0]["heading"] == "Food"


def test_tools_are_refused_where_documents_answer(extract):
    tool = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
    refused = extract[1].post("/v1/chat/completions", json=body(tools=[tool]))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")


def test_passages_need_a_knowledge_base(tmp_path):
    from tests.serving.small_chat import chat_release

    with chat_service(chat_release(tmp_path)) as (_, client):
        refused = client.post("/v1/chat/completions", json=body(include_passages=True))
        none = client.post("/v1/search", json={"query": "Where?"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "include_passages")
    assert none.status_code == 404


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("knowledge/passages.sqlite", "knowledge index"),
        ("knowledge/vectors.npy", "knowledge index"),
        ("embedder/model.safetensors", "embedder"),
        ("answering.json", "file of answer settings"),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_part_does_not_start(extractive, tmp_path, name, part, gone):
    """One byte more, or no such file: the error names it."""
    copy = shutil.copytree(extractive, tmp_path / extractive.name)
    if gone:
        (copy / name).unlink()
    else:
        with (copy / name).open("ab") as file:
            file.write(b"x")
    with pytest.raises(DriftlineError, match=f"does not start: its {part} differs") as error:
        KnowledgeBase(ReleasedModel(copy)).open()
    assert name in error.value.where


def test_an_index_of_another_embedder_does_not_start(extractive, tmp_path):
    """Sealed as it is, but the index names the digest of other vectors."""
    copy = shutil.copytree(extractive, tmp_path / extractive.name)
    path = copy / "knowledge" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"embedder": "0" * 64}))
    release = ReleasedModel(copy)
    from tasks.core.files import file_digest

    release.knowledge_files["knowledge/index.json"] = file_digest(path)
    with pytest.raises(DriftlineError, match="The index was built by another embedder"):
        KnowledgeBase(release).open()
