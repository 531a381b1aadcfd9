"""A release served by vLLM elsewhere: by vLLM where VLLM_PYTHON has it, else by llama.cpp with its way to tokenize."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.generate import make_release
from benchmarks.gpu import vllm
from services.serving.package import bento_folder, package
from services.serving.process import serve_bento
from services.serving.smoke import is_near_tie, smoke
from tasks.core.errors import DriftlineError, InputError, Unavailable
from tasks.core.settings import ROOT
from tasks.core.sockets import http_client
from tasks.language.engine import Engine, start_engine
from tasks.language.released_model import ReleasedModel, check_golden, require_server
from tasks.language.vllm import API_KEY_VARIABLE, URL_VARIABLE, connect_vllm
from tasks.release.language import vllm_command
from tasks.release.seal import GOLDEN, MANIFEST, verify
from tasks.train.config import Serving
from tests.language_case import smollm_base
from tests.train.pairs import tiny_base

SERVING = Serving(engine="vllm", weights="f16", slots=2, answer_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sealed release of a small random model."""
    state = tmp_path_factory.mktemp("elsewhere")
    return make_release(state, tiny_base(state / "base"), SERVING)[0]


@contextmanager
def standing(running: Engine, deaf: bool = False) -> Iterator[str]:
    """Serve an engine's answers as they are, but token ids as vLLM gives them; `deaf`: the system prompt is lost."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/tokenize":
                ids = running.tokens(json.loads(body)["messages"][deaf:])
                return self.tell(200, json.dumps({"tokens": ids, "count": len(ids), "max_model_len": 512}).encode())
            sent = {"Authorization": self.headers.get("Authorization", "")}
            with httpx.stream(self.command, running.address + self.path, content=body, headers=sent) as answer:
                self.tell(answer.status_code, answer.read())
            return None

        do_GET = do_POST  # noqa: N815

        def tell(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def running(folder) -> Iterator[Engine]:
    with start_engine(
        folder / "model.gguf", threads=1, slots=2, context=512, name=ReleasedModel(folder).tag
    ) as started:
        yield started


@pytest.fixture(scope="module")
def bento(folder, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("bentoml")
    return bento_folder(home, package(folder, home, ROOT / "requirements.lock"))


@pytest.fixture(scope="module")
def service(bento, running) -> Iterator[str]:
    """The Bento's address."""
    with (
        standing(running) as address,
        serve_bento(bento, {URL_VARIABLE: address, API_KEY_VARIABLE: running.key}, bento.parent / "log") as service,
    ):
        yield service


def test_the_service_forwards_to_a_remote_server(folder, bento, service):
    """The Bento holds no weights, and answers as the release did when it was judged, stream after stream."""
    assert not list(bento.rglob("*.gguf")) + list(bento.rglob("*.safetensors"))
    assert smoke(folder, service)["examples"] == 2
    with http_client(service, timeout=60) as client:
        body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 4}
        answers = [client.post("/v1/chat/completions", json=body) for _ in range(6)]
        assert {answer.status_code for answer in answers} == {200}
        refused = client.post("/v1/embeddings", json={"input": "Hello"})
        assert refused.status_code == 404
        assert "has no embedder" in refused.json()["error"]["message"]
        assert all(answer.text.rstrip().endswith("data: [DONE]") for answer in answers)


def test_an_answer_may_differ_at_a_near_tie_alone(folder, running, service, tmp_path, monkeypatch):
    """Other batches round otherwise: there, and nowhere else, the service may leave a golden answer."""
    golden = json.loads((folder / GOLDEN).read_text())
    body = {"messages": golden[0]["messages"], "max_tokens": 12, "logprobs": True, "top_logprobs": 2, "temperature": 0}
    with httpx.Client(base_url=running.address, headers={"Authorization": f"Bearer {running.key}"}) as client:
        tokens = client.post("/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == golden[0]["answer"]
    place, (first, second) = next(
        (place, token["top_logprobs"])
        for place, token in enumerate(tokens)
        if place and len(token["top_logprobs"]) == 2
    )
    lead = first["logprob"] - second["logprob"]
    begun = "".join(token["token"] for token in tokens[:place])
    shutil.copy(folder / MANIFEST, tmp_path)
    for answer, bound, near in (
        (begun + second["token"] + " and so on", lead * 1.01, True),
        (begun + second["token"] + " and so on", lead * 0.99, False),
        (begun + "\N{SNOWMAN}", lead * 1.01, False),
        (begun, lead * 1.01, False),
    ):
        monkeypatch.setattr("services.serving.smoke.NEAR_TIE_NATS", bound)
        (tmp_path / GOLDEN).write_text(json.dumps([{**golden[0], "answer": answer}, *golden[1:]]))
        with nullcontext() if near else pytest.raises(DriftlineError, match="differs from the offline"):
            smoke(tmp_path, service)
    monkeypatch.setattr("services.serving.smoke.NEAR_TIE_NATS", lead * 1.01)
    assert is_near_tie(tokens, begun + second["token"] + " and so on", golden[0]["answer"])
    for broken in (begun, "", begun + "\N{SNOWMAN}"):  # such as a stream that loses something
        assert not is_near_tie(tokens, broken, golden[0]["answer"])


@pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="VLLM_PYTHON names no Python whose environment has vLLM")
def test_vllm_serves_it_by_the_command_of_the_release(tmp_path, monkeypatch):
    """vLLM takes flags, adapter and template; golden prompts become the same ids, and answers keep the schema."""
    folder, _ = make_release(tmp_path / "state", smollm_base(), SERVING)
    tag = package(folder, tmp_path / "bentoml", ROOT / "requirements.lock")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
    command = vllm_command([folder])
    command[3:3] = ["--gpu-memory-utilization", "0.3"]  # there may be other work here; on a CPU it is of its memory
    with vllm(os.environ["VLLM_PYTHON"], command, tmp_path / "vllm.log") as (address, key):
        there = {URL_VARIABLE: address, API_KEY_VARIABLE: key}
        for name, value in there.items():
            monkeypatch.setenv(name, value)
        require_server(folder)
        second = make_release(tmp_path / "second", smollm_base(), SERVING.model_copy(update={"slots": 3}))[0]
        require_server(second)  # the server takes a further adapter while it runs
        with connect_vllm(ReleasedModel(second).tag) as reached:
            check_golden(reached, ReleasedModel(second).golden)
        with serve_bento(bento_folder(tmp_path / "bentoml", tag), there, tmp_path / "log") as service:
            assert smoke(folder, service, tmp_path / "log")["examples"] == 2


def test_it_does_not_serve_without_the_server(folder, running, monkeypatch):
    """No address, no server, a wrong key and a server that lacks the release: each says what would start one."""
    release = ReleasedModel(folder)
    monkeypatch.setenv(API_KEY_VARIABLE, running.key)
    for address in ("", "http://127.0.0.1:9"):
        monkeypatch.setenv(URL_VARIABLE, address)
        with pytest.raises(Unavailable, match="No vLLM server") as caught, release.start():
            pass
        assert f"driftline vllm {release.tag}" in caught.value.todo
        with pytest.raises(Unavailable, match="No vLLM server") as caught:
            require_server(folder)
        assert f"--as-of {release.as_of}" in caught.value.todo
    monkeypatch.setenv(URL_VARIABLE, running.address)
    require_server(folder)
    with pytest.raises(Unavailable) as caught, connect_vllm("other:0123"):
        pass
    assert release.tag in caught.value.found
    monkeypatch.setenv(API_KEY_VARIABLE, "wrong")
    with standing(running) as address:
        monkeypatch.setenv(URL_VARIABLE, address)
        with pytest.raises(Unavailable, match="No vLLM server"), release.start() as reached:
            reached.tokens([{"role": "user", "content": "Hello"}])


def test_a_server_that_renders_otherwise_is_refused(folder, running, monkeypatch):
    """Golden prompts must become the sealed token ids there, too."""
    release = ReleasedModel(folder)
    monkeypatch.setenv(API_KEY_VARIABLE, running.key)
    for deaf in (False, True):
        with standing(running, deaf) as address:
            monkeypatch.setenv(URL_VARIABLE, address)
            with release.start() as reached:
                if not deaf:
                    check_golden(reached, release.golden)
                    continue
                with pytest.raises(DriftlineError, match="golden prompt otherwise"):
                    check_golden(reached, release.golden)


def test_the_start_command_comes_from_the_release(folder, tmp_path):
    """Base, template and adapter lie in the sealed release; each adapter is loaded under its release's tag."""
    from transformers import AutoModelForCausalLM

    release, files = ReleasedModel(folder), verify(folder)["sealed"]["files"]
    command = vllm_command([folder])
    assert shlex.split(shlex.join(command)) == command
    flags = dict(pairwise(command))
    assert flags["--lora-modules"] == f"{release.tag}={folder / 'adapter'}"
    assert flags["--max-model-len"] == str(release.context)
    assert flags["--max-num-seqs"] == "2"
    assert flags["--max-lora-rank"] == "16"
    assert {"base/model.safetensors", "base/config.json", "base/tokenizer.json"} <= set(files)
    assert Path(flags["--chat-template"]).is_relative_to(folder)
    AutoModelForCausalLM.from_pretrained(flags["serve"])
    other = make_release(tmp_path, tiny_base(tmp_path / "base"), Serving(weights="f16", answer_tokens=12))[0]
    with pytest.raises(InputError, match="another engine"):
        vllm_command([folder, other])


def test_releases_of_one_base_share_a_server(folder, tmp_path):
    """Two releases are two adapters of one process; one of another base is refused."""
    base = tiny_base(folder.parents[2] / "base")
    second = make_release(tmp_path / "a", base, SERVING.model_copy(update={"slots": 3}))[0]
    command = vllm_command([folder, second])
    assert len(command[command.index("--lora-modules") + 1 :]) == 2
    assert command[command.index("--max-num-seqs") + 1] == "5"
    third = make_release(tmp_path / "b", base.model_copy(update={"digest": "0" * 64}), SERVING)[0]
    with pytest.raises(InputError, match="one base"):
        vllm_command([folder, third])


def test_what_is_served_is_judged():
    """Rounded weights would be judged, and others served: refused."""
    with pytest.raises(ValueError, match="weights: f16"):
        Serving(engine="vllm")
