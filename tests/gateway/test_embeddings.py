"""Embeddings through the gateway, with OpenAI's own client."""

from __future__ import annotations

import numpy as np
import openai
import pytest
from sqlalchemy import select

from services.store.database import now, usage_records
from tasks.data.language.embedder_files import find_embedder
from tasks.language.embedder import Embedder
from tests.gateway.stack import gateway_client
from tests.language_case import EMBEDDER

pytestmark = pytest.mark.xdist_group("gateway")

ONE, ALIKE, STRANGER = (
    "How much does a ticket to Boston cost?",
    "What is the price of a flight to Boston?",
    "Feed my cat.",
)


@pytest.fixture(scope="module")
def ai(settings, talker) -> openai.OpenAI:
    address = f"http://127.0.0.1:{settings.gateway_port}/v1"
    return openai.OpenAI(base_url=address, api_key="none needed", max_retries=0, timeout=180)


def test_vectors_are_the_embedders_own(ai, talker, tmp_path, store):
    """One text and several, as base64 (the client's own wish) and as numbers: unit vectors, as monitoring has them."""
    texts = [ONE, STRANGER, ALIKE]
    opened = Embedder(find_embedder(EMBEDDER, tmp_path).folder)
    own, began = opened.encode(texts), now()
    answers = [ai.embeddings.create(model="talker", input=texts, **more) for more in ({}, {"encoding_format": "float"})]
    for answer in answers:
        vectors = np.array([each.embedding for each in answer.data])
        assert vectors.shape == (3, 384)
        assert [each.index for each in answer.data] == [0, 1, 2]
        np.testing.assert_allclose(vectors, own, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert answer.model == talker.bento
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(opened.tokens(texts))
    one = ai.embeddings.create(model=talker.bento, input=ONE)
    np.testing.assert_allclose(one.data[0].embedding, own[0], atol=1e-5)
    alike, strange = own[0] @ own[2], own[0] @ own[1]
    assert alike > strange + 0.3
    with store.reading() as connection:
        calls = usage_records.c.interface == "embeddings", usage_records.c.at >= began
        entered = (
            connection.execute(select(usage_records).where(*calls).order_by(usage_records.c.at)).mappings().first()
        )
    assert (entered["state"], entered["tokens_out"]) == ("done", 0)
    assert entered["tokens_in"] == answers[0].usage.prompt_tokens
    assert entered["price"] == 1000 * entered["tokens_in"]


def test_the_same_texts_again_come_from_the_cache(ai, talker):
    """A vector does not change: it costs once, and another form of it is another answer."""
    request = {"model": "talker", "input": "Once more."}
    hits = [ai.embeddings.with_raw_response.create(**request).headers.get("x-driftline-cache") for _ in range(2)]
    assert hits == [None, "hit"]
    floats = ai.embeddings.with_raw_response.create(**request, encoding_format="float")
    assert "x-driftline-cache" not in floats.headers


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": [15339, 1917]}, "token ids are not"),
        ({"input": [[15339]]}, "token ids are not"),
        ({"input": []}, "1 to 256"),
        ({"input": ["a"] * 257}, "257 texts"),
        ({"input": ["a", " "]}, "text 1 is empty"),
        ({"input": ["a", "word " * 400]}, "text 1 has 402 tokens; up to 256"),
        ({"input": "a", "dimensions": 64}, "384 is what there is"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "colour": 1}, "colour"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_input_is_refused_with_a_reason(settings, talker, body, says):
    """In OpenAI's form, with what is taken."""
    with gateway_client(settings) as client:
        answer = client.post("/v1/embeddings", json={"model": "talker", **body})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
