"""Promise: a case names a model behind an address in one line, and no secret stands in it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError, Unavailable
from tasks.data.config import Model
from tasks.language.upstream import Upstream, address_in, model_in, source_problem


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("openai://api.openai.com/v1#gpt-5-mini", "https://api.openai.com/v1"),
        ("openai://api.example.com#m", "https://api.example.com/v1"),
        ("openai://openrouter.ai/api/v1#meta/llama-3:free", "https://openrouter.ai/api/v1"),
        ("openai://127.0.0.1:8080/v1#m", "http://127.0.0.1:8080/v1"),
        ("openai://localhost:8080#m", "http://localhost:8080/v1"),
        ("openai://[::1]:8080/v1#m", "http://[::1]:8080/v1"),
        ("openai://10.1.2.3/v1/#m", "http://10.1.2.3/v1"),
        ("openai://llm.internal/v1#m", "http://llm.internal/v1"),
        ("openai://llama:8000/v1#m", "http://llama:8000/v1"),
        ("openai+http://api.example.com/v1#m", "http://api.example.com/v1"),
        ("openai+https://127.0.0.1/v1#m", "https://127.0.0.1/v1"),
    ],
)
def test_an_address_is_https_unless_it_is_private(source, address):
    """What leaves the machine for a public host is encrypted, unless the case states HTTP itself."""
    assert source_problem(source) == ""
    assert address_in(source) == address
    assert Model(source=source)


def test_the_address_may_come_from_the_environment(monkeypatch):
    """A variable that is not set, or holds no address, or a secret, is an error that names the variable."""
    source = "openai://$LLM_URL#some/model"
    monkeypatch.setenv("LLM_URL", "http://192.0.2.1:9/api/v1/")
    assert (address_in(source), model_in(source)) == ("http://192.0.2.1:9/api/v1", "some/model")
    for value, found in (
        ("", "not set"),
        ("host:1", "no http"),
        ("https://a:b@c/v1", "a secret"),
        ("http://c?k=1", "query"),
    ):
        monkeypatch.setenv("LLM_URL", value)
        with pytest.raises(CaseError, match="no address") as caught:
            address_in(source)
        assert found in caught.value.found
        assert "a:b" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": "openai://api.openai.com/v1"}, "must be openai://HOST/v1#MODEL"),
        ({"source": "openai://user:sk-1@api.openai.com/v1#m"}, "a secret stands in the address"),
        ({"source": "openai://api.openai.com/v1?key=1#m"}, "must be openai"),
        ({"source": "openai+http://$LLM_URL#m"}, "holds the scheme too"),
        ({"source": "openai+ftp://a/v1#m"}, "match pattern"),
        ({"source": "openai://host:99999/v1#m"}, "out of range"),
        ({"source": "openai://host/v1#m", "sha256": "0" * 64}, "sha256: not for a source openai"),
        ({"source": "openai://host/v1#m", "key": "sk-live-1"}, "match pattern"),
        ({"source": "openai://host/v1#m", "parameters": {"messages": []}}, "messages come with each request"),
        ({"source": "file://a.gguf", "key": "LLM_KEY"}, "key: only for a source openai"),
    ],
)
def test_a_source_that_can_not_work_is_refused(changes, problem):
    """When the case is read: before anything runs, or leaves the machine."""
    with pytest.raises(ValidationError, match=problem):
        Model(**changes)


def test_a_key_is_read_when_it_is_needed_and_never_written(monkeypatch, tmp_path):
    """The description that a release seals holds the variable's name alone."""
    upstream = Upstream(source="openai://host/v1#m", address="https://host/v1", model="m", key="LLM_KEY")
    monkeypatch.delenv("LLM_KEY", raising=False)
    with pytest.raises(Unavailable, match="key of m is not set") as caught:
        _ = upstream.headers
    assert "LLM_KEY" in caught.value.where
    monkeypatch.setenv("LLM_KEY", "sk-secret")
    assert upstream.headers == {"authorization": "Bearer sk-secret"}
    upstream.write(tmp_path / "upstream.json")
    assert "sk-secret" not in (tmp_path / "upstream.json").read_text()
    assert Upstream.read(tmp_path / "upstream.json") == upstream


def test_parameters_of_the_case_are_of_each_request():
    """They add fields, replace those that are sent otherwise, and remove them by null."""
    upstream = Upstream(
        source="openai://host/v1#m",
        address="https://host/v1",
        model="m",
        parameters={"temperature": None, "reasoning_effort": "low"},
        tokens_field="max_completion_tokens",
    )
    body = upstream.request_body({"messages": [], "temperature": 0.0, "max_tokens": 5})
    assert body == {"messages": [], "max_completion_tokens": 5, "model": "m", "reasoning_effort": "low"}
