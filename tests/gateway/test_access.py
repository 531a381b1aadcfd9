"""Promise: without a key only direct requests of this machine's owner are allowed: to predict and to send feedback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from services.serving.process import free_port
from services.store.database import Store
from services.store.keys import LOCAL_KEY, create_key
from tasks.core.hosts import host_name
from tasks.core.local_secrets import read_secret, secret_file
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import Settings
from tests.gateway.stack import gateway, gateway_client
from tests.waiting import listens, wait_for

pytestmark = pytest.mark.xdist_group("gateway")

ROUTES = [
    ("GET", "/v1/models"),
    ("POST", "/v1/predict/any"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/feedback/x"),
]
INSIDE = ["/metrics", "/openapi.json"]
RELAY = """
import asyncio, os, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
async def relay(reader, writer):
    to = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, to[1]), pump(to[0], writer))
async def main():
    await (await asyncio.start_server(relay, "127.0.0.1", int(sys.argv[1]))).serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory) -> Iterator[Settings]:
    """A gateway for which no key was ever created."""
    folder = tmp_path_factory.mktemp("open")
    own = Settings(state=folder, gateway_port=free_port(), allowed_hosts="models.example.org, Other.Example:8443")
    with gateway(own, own.gateway_port, folder / "log"):
        yield own


@pytest.fixture(scope="module")
def guarded_gateway(tmp_path_factory) -> Iterator[tuple[Settings, Store]]:
    folder = tmp_path_factory.mktemp("guarded")
    own = Settings(state=folder, gateway_port=free_port())
    with closing(Store(own)) as store:
        create_key(store, "web", ["predict"], None, None, None)
        with gateway(own, own.gateway_port, folder / "log"):
            yield own, store


@contextmanager
def relay_of_another_user(port: int) -> Iterator[int]:
    """A proxy that changes nothing and adds no header, run by another user; its port."""
    if os.geteuid():
        pytest.skip("only root can start a program as another user")
    own = free_port()
    command = with_parent_death_signal([sys.executable, "-I", "-S", "-c", RELAY, str(own), str(port)])
    process = subprocess.Popen(command)
    try:
        assert wait_for(lambda: listens(own))
        yield own
    finally:
        process.kill()
        process.wait()


def test_the_owner_gets_in_directly(open_gateway):
    """To predict, to give feedback, and to look at what their own gateway does."""
    assert LOCAL_KEY.roles == {"predict", "feedback"}
    with gateway_client(open_gateway) as http:
        assert http.get("/v1/models").status_code == 200
        assert http.post("/v1/predict/any", json={}).status_code == 404
        assert http.get("/readyz").json()["champions"] == {}
        assert [http.get(path).status_code for path in INSIDE] == [200, 200]


def test_approvals_need_a_key(open_gateway):
    """The owner's direct connection opens neither the list nor the decision."""
    with gateway_client(open_gateway) as http:
        assert http.get("/v1/approvals").status_code == 403
        assert http.post("/v1/approvals/any", json={"decision": "approve", "evidence": "abcd"}).status_code == 403


def test_another_user_of_the_machine_does_not_get_in(open_gateway):
    """Recognised by the socket, although the headers are identical; so is a proxy that this user runs."""
    with (
        relay_of_another_user(open_gateway.gateway_port) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        for method, path in ROUTES:
            assert http.request(method, path).status_code == 401, path
        for path in INSIDE:
            assert http.get(path).status_code == 401, path
        assert http.get("/readyz").json() == {"status": "ready"}
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "via",
        "origin",
        "sec-fetch-site",
    ],
)
def test_the_owners_proxies_and_pages_are_refused(open_gateway, header):
    with gateway_client(open_gateway) as http:
        for method, path in ROUTES:
            answer = http.request(method, path, headers={header: "a"})
            assert answer.status_code == 401
            assert "driftline keys create" in answer.json()["error"]["message"]
        assert http.get("/metrics", headers={header: "a"}).status_code == 401
        assert http.get("/readyz", headers={header: "a"}).json() == {"status": "ready"}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8400",
        "127.0.0.1.evil.example",
        "10.1.2.3",
        "[::2]",
        "a@localhost",
        "localhost/evil",
        "xlocalhost",
        "127.0.0.1:8400:8400",
        "xn--lcalhost-55a",
        "models.example.org.evil.example",
        "-",
    ],
)
def test_a_rebound_host_name_is_refused_first(open_gateway, host):
    """On every route, with and without a key, also what needs none."""
    secret = read_secret(open_gateway.state, "operator")
    for headers in ({}, {"authorization": f"Bearer {secret}"}):
        with gateway_client(open_gateway) as http:
            for path in ("/healthz", "/readyz", "/v1/models", "/metrics", "/openapi.json", "/none"):
                answer = http.get(path, headers={"host": host} | headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.9.9.9:8400",
        "[::1]:8400",
        "localhost.",
        "models.example.org",
        "Models.Example.Org:443",
        "other.example",
    ],
)
def test_local_and_allowed_host_names_are_accepted(open_gateway, host):
    with gateway_client(open_gateway) as http:
        assert http.get("/healthz", headers={"host": host}).status_code == 200


def test_names_are_listed_with_blanks_or_commas():
    hosts = Settings(host="0.0.0.0", allowed_hosts="a.example,b.example:80  C.example\n").host_names
    assert hosts == {"localhost", "127.0.0.1", "::1", "0.0.0.0", "a.example", "b.example", "c.example"}
    assert host_name("a b") == host_name("[::1") == ""


def test_the_operators_key_is_the_owners_alone(open_gateway):
    """It is created at the first start, opens everything, and does not switch on keys for this machine."""
    path = secret_file(open_gateway.state, "operator")
    assert path.stat().st_mode & 0o777 == 0o600
    with gateway_client(open_gateway, path.read_text()) as http:
        assert http.get("/v1/approvals").json() == {"approvals": []}
        assert http.get("/metrics", headers={"x-forwarded-for": "8.8.8.8"}).status_code == 200
    with gateway_client(open_gateway) as http:
        assert http.get("/v1/models").status_code == 200


def test_the_operators_key_works_beside_other_keys(guarded_gateway):
    own, _ = guarded_gateway
    with gateway_client(own, str(read_secret(own.state, "operator"))) as http:
        assert http.get("/v1/models").status_code == http.get("/v1/approvals").status_code == 200
        assert http.post("/v1/predict/any", json={}).status_code == 404
    with gateway_client(own) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/approvals").status_code == 401
        assert http.get("/metrics").status_code == 200, "the owner may look, directly"


def test_the_role_operate_opens_what_operators_look_at(guarded_gateway):
    """Metrics, who is champion, models, the document; no predictions, no approvals. Other roles open less."""
    own, store = guarded_gateway
    opened = {}
    for role in ("operate", "predict", "feedback", "approve"):
        _, secret = create_key(store, role, [role], None, None, None)
        with gateway_client(own, secret) as http:
            assert wait_for(lambda: http.get("/v1/models").status_code != 401, 3)
            paths = [*INSIDE, "/v1/models", "/v1/approvals"]
            opened[role] = [path for path in paths if http.get(path).status_code == 200]
            opened[role] += ["details"] * ("champions" in http.get("/readyz").json())
            assert http.post("/v1/predict/any", json={}).status_code == (404 if role == "predict" else 403)
    assert opened == {
        "operate": [*INSIDE, "/v1/models", "details"],
        "predict": ["/v1/models"],
        "feedback": [],
        "approve": ["/v1/approvals"],
    }
