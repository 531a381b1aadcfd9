"""Promise: a model behind an address is known by what its server shows; another server is another base."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import DataError, Unavailable
from tasks.data.config import Model
from tasks.data.language.remote_base import open_remote
from tasks.language.upstream import Upstream
from tests.language.upstreams import Misbehaving, Reply, Script, completion, error, misbehaving, whole

LISTED = [{"id": "other"}, {"id": "m", "created": 5, "owned_by": "us", "meta": {"n_params": 7}}]


def model_at(server: Misbehaving, **more: Any) -> Model:
    return Model(source=f"openai+{server.address}#m", **more)


def script(*fingerprints: str, follows: bool = True) -> Script:
    def answer(request: dict[str, Any], number: int) -> Reply:
        text = '{"word": "yes"}' if "response_format" in request and follows else "yes"
        return whole(completion(text, system_fingerprint=fingerprints[number % len(fingerprints)]))

    return answer


def test_equal_servers_are_one_base(tmp_path):
    """Its digest is over address, model and all that the server shows, except times."""
    with misbehaving(script("fp_1"), LISTED) as server:
        first, again = (open_remote(model_at(server), tmp_path) for _ in range(2))
        assert first == again
        assert first.upstream
        assert first.upstream.facts == {"id": "m", "owned_by": "us", "meta": {"n_params": 7}}
        assert first.upstream.fingerprints == ("fp_1",)
        assert first.upstream.json_schema
        assert Upstream.read(first.served) == first.upstream
        others = [open_remote(model_at(server, parameters={"top_k": 1}), tmp_path)]
        server.script = script("fp_2")
        others.append(open_remote(model_at(server), tmp_path))
        server.models = [{"id": "m", "meta": {"n_params": 8}}]
        others.append(open_remote(model_at(server), tmp_path))
    assert len({first.digest, *(each.digest for each in others)}) == 4


def test_a_server_with_several_fingerprints_is_one_base(tmp_path):
    """Which of its machines answers changes nothing, once it was seen."""
    with misbehaving(script("fp_a", "fp_b")) as server:
        assert len({open_remote(model_at(server), tmp_path).digest for _ in range(4)}) == 1


def test_what_a_server_can_is_found_out(tmp_path):
    """Whether it follows a schema, and what it calls the limit of an answer."""

    def newer(request: dict[str, Any], _: int) -> Reply:
        if "max_tokens" in request:
            return whole(error("Unsupported parameter: use 'max_completion_tokens' instead."), 400)
        if "response_format" in request:
            return whole(error("response_format is not supported."), 400)
        return whole(completion())

    with misbehaving(newer) as server:
        base = open_remote(model_at(server), tmp_path)
        assert base.upstream
        assert base.upstream.tokens_field == "max_completion_tokens"
        assert not base.upstream.json_schema
        server.script = script("fp", follows=False)
        base = open_remote(model_at(server, parameters={"a": 1}), tmp_path)
        assert base.upstream
        assert not base.upstream.json_schema


def test_a_base_that_does_not_answer_is_no_base(tmp_path):
    """Nonsense, a refusal and silence end the run before anything is evaluated, and write no file."""
    for reply, kind in ((whole(b"<html>"), Unavailable), (whole(error("no temperature"), 400), DataError)):
        with misbehaving(reply) as server, pytest.raises(kind):
            open_remote(model_at(server), tmp_path)
    with pytest.raises(Unavailable, match="does not answer"):
        open_remote(Model(source="openai://127.0.0.1:9/v1#m"), tmp_path)
    assert not list(tmp_path.rglob("upstream.json"))
