"""Promise: parameters mean what they say: none wraps around, and nothing random comes from the cache."""

from __future__ import annotations

import openai
import pytest

from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import gateway_client

pytestmark = pytest.mark.xdist_group("gateway")

HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [2**31, 2**32 + 1, 2**64, 1e20, 0, -1, 1.5, True, "99999999999", [1], {}])
def test_lengths_that_no_engine_counts_are_refused(settings: Settings, talker: Release, name, value):
    with gateway_client(settings) as http:
        answer = http.post("/v1/chat/completions", json=HELLO | {name: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize("value", [2**31 - 1, 3, None])
def test_lengths_that_engines_count_are_taken(settings: Settings, talker: Release, value):
    with gateway_client(settings) as http:
        answer = http.post("/v1/chat/completions", json=HELLO | {"max_tokens": value})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 1


@pytest.mark.parametrize(
    ("parameters", "hit"),
    [
        ({"seed": -1}, False),
        ({"seed": -1, "temperature": 0}, False),
        ({"seed": 2**32 - 1}, False),
        ({"temperature": 0.7}, False),
        ({"seed": 7}, True),
        ({"seed": 0}, True),
        ({"temperature": 0}, True),
    ],
)
def test_random_responses_are_not_cached(settings: Settings, talker: Release, parameters, hit):
    body = HELLO | {"messages": [{"role": "user", "content": f"Say {sorted(parameters.items())}"}]} | parameters
    with gateway_client(settings) as http:
        answers = [http.post("/v1/chat/completions", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ("x-driftline-cache" in answers[1].headers) is hit


def test_a_model_is_shown_in_openais_form(settings: Settings, talker: Release):
    """By its case and by its release; another one is an error of the official client's kind."""
    url = f"http://127.0.0.1:{settings.gateway_port}/v1"
    ai = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    listed = [model.id for model in ai.models.list()]
    assert f"talker:{talker.digest[:12]}" in listed
    for name in listed:
        assert ai.models.retrieve(name).id == name
    for name in ("nothing", "small"):
        with pytest.raises(openai.NotFoundError, match="no model"):
            ai.models.retrieve(name)
