"""The gateway behind nginx, set up as docs/guides/serving.md says: TLS, streams, clients that leave, large bodies."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from services.serving.process import free_port
from services.store.database import Store, usage_records
from services.store.keys import create_key
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT, Settings
from tests.gateway.stack import copy_routes, gateway
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.xdist_group("gateway"),
    pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("openssl")), reason="no nginx is installed"),
]

STORY: dict[str, Any] = {
    "model": "talker",
    "messages": [{"role": "user", "content": "Tell a long story."}],
    "response_format": {"type": "text"},
    "max_tokens": 150,
    "stream": True,
}


@contextmanager
def nginx(folder: Path, gateway_port: int) -> Iterator[httpx.Client]:
    """A client of the server that the documentation shows, under another port and certificate."""
    port, (certificate, key) = free_port(), (folder / "models.pem", folder / "models.key")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    create_certificate = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        *subject,
    ]
    subprocess.run(create_certificate, capture_output=True, check=True)
    page = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    (server,) = re.findall(r"```nginx\n(.*?)```", page, re.S)
    for shown, actual in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/models.pem", str(certificate)),
        ("/etc/ssl/models.key", str(key)),
        ("127.0.0.1:8400", f"127.0.0.1:{gateway_port}"),
    ):
        assert shown in server
        server = server.replace(shown, actual)
    places = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    alone = f"daemon off; pid {folder}/pid; {'user root;' if os.geteuid() == 0 else ''} events {{}}"
    configuration = folder / "nginx.conf"
    configuration.write_text(f"{alone} http {{ access_log off; {places} {server} }}", encoding="utf-8")
    command = [str(shutil.which("nginx")), "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    with (folder / "nginx.log").open("wb") as output:
        process = subprocess.Popen(with_parent_death_signal(command), stdout=output, stderr=output)
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting, timeout=60, trust_env=False) as client:
            assert wait_for(lambda: _answers(client), 20), (folder / "nginx.log").read_text()
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def own(settings: Settings, table, talker, tmp_path_factory) -> Iterator[tuple[Settings, Store]]:
    """Another gateway before the releases that run, with a store of its own."""
    config = Settings(state=tmp_path_factory.mktemp("proxied"), gateway_port=free_port())
    with closing(Store(config)) as store:
        copy_routes(settings, config)
        with gateway(config, config.gateway_port, config.state / "log"):
            yield config, store


@pytest.fixture(scope="module")
def proxy(own: tuple[Settings, Store]) -> Iterator[httpx.Client]:
    with nginx(own[0].state, own[0].gateway_port) as client:
        yield client


@pytest.fixture(scope="module")
def ai(own: tuple[Settings, Store], proxy: httpx.Client) -> openai.OpenAI:
    assert proxy.get("/v1/models").status_code == 401, "without a key, whoever a proxy speaks for may ask nothing"
    _, secret = create_key(own[1], "web", ["predict"], None, None, None)
    proxy.headers["authorization"] = f"Bearer {secret}"
    assert wait_for(lambda: proxy.get("/v1/models").is_success, 5)
    return openai.OpenAI(base_url=f"{proxy.base_url}/v1", api_key=secret, max_retries=0, http_client=proxy)


def state_of(store: Store, request_id: str) -> tuple[str, int]:
    with store.reading() as connection:
        entry = connection.execute(usage_records.select().where(usage_records.c.id == request_id)).mappings().one()
        return entry["state"], entry["tokens_out"]


def test_a_stream_arrives_piece_by_piece(own, ai):
    """The first piece arrives while the model is still generating; the rest follows."""
    with ai.chat.completions.with_raw_response.create(**STORY).parse() as stream:
        request_id = stream.response.headers["x-request-id"]
        next(iter(stream))
        assert state_of(own[1], request_id) == ("open", 0)
        pieces = len(list(stream))
    assert pieces > 20
    assert wait_for(lambda: state_of(own[1], request_id)[0] == "done", 5)


def test_a_client_that_leaves_ends_its_answer(own, ai):
    """Through the proxy, too: tokens that no client reads are not generated."""
    with ai.chat.completions.with_raw_response.create(**STORY).parse() as stream:
        request_id = stream.response.headers["x-request-id"]
        next(iter(stream))
    assert wait_for(lambda: state_of(own[1], request_id)[0] == "aborted", 10)
    assert state_of(own[1], request_id)[1] < STORY["max_tokens"]


def test_large_bodies(own, ai, proxy):
    """The gateway answers what it takes, up to its 16 MB; beyond, the proxy refuses; figures stay inside."""
    answer = proxy.post("/v1/predict/small", content=b" " * (16 * 1024 * 1024))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert proxy.post("/v1/predict/small", content=b" " * (16 * 1024 * 1024 + 1)).status_code == 413
    assert proxy.get("/metrics").status_code == 403
