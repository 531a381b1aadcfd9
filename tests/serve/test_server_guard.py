"""Promise: Prefect's and MLflow's servers let in who has the login, and no other page, host name or user."""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tasks.serve.server_guard import ServerGuard
from tests.serve.servers import Servers, exchange, running
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("servers")

UPGRADE = """Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="""
SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/x/workers/connect",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FILTER = "/api/flow_runs/filter"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
OWN_NAMES = ("127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost:9", "localhost")
OTHER_NAMES = (
    "evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example",
    "evil.example:80@127.0.0.1:{port}",
    "127.0.0.1:{port}@evil.example",
    "127.0.0.1:{port}, evil.example",
    "127.0.0.1:{port}/",
    "192.168.1.7:{port}",
    "0.0.0.0:{port}",
    "2130706433:{port}",
    "127.1:{port}",
    "",
)
OTHER_ORIGINS = (
    "http://evil.example",
    "https://evil.example:{port}",
    "http://127.0.0.1:1",
    "http://localhost:{port}",
    "http://127.0.0.1",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1:{port}@evil.example",
    "http://user@127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}",
    "chrome-extension://abcdef",
    "null",
    "file://",
    "*",
    "",
)
OFF = (
    "/gateway/mlflow/v1/models",
    "/gateway/proxy/x/y",
    "/gateway/x/mlflow/invocations",
    "/v1/traces",
    "/{api}/2.0/mlflow/gateway-proxy?gateway_path=x",
    "/{api}/2.0/mlflow/webhooks",
    "/{api}/2.0/mlflow/webhooks/x/test",
    "/{api}/2.0/mlflow/runs/create-promptlab-run",
    "/{api}/3.0/jobs/x",
    "/{api}/3.0/jobs/search",
    "/{api}/3.0/mlflow/jobs/x",
    "/{api}/3.0/mlflow/gateway/secrets/list",
    "/{api}/3.0/mlflow/gateway/endpoints/list",
    "/{api}/3.0/mlflow/assistant/config",
    "/{api}/3.0/mlflow/assistant/message",
    "/{api}/3.0/mlflow/mcp-servers",
    "/{api}/3.0/mlflow/scorer/invoke",
    "/{api}/3.0/mlflow/issues/invoke",
    "/{api}/3.0/mlflow/genai/evaluate/invoke",
    "/{api}/3.0/mlflow/prompt-optimization/jobs/search",
    "/{api}/3.0/mlflow/demo/generate",
    "/{api}/3.0/mlflow/ui-telemetry",
    "/{api}/3.0/mlflow/workspaces",
    "//gateway/mlflow/v1/models",
    "/%67ateway/mlflow/v1/models",
    "/{api}/2.0/mlflow/runs%2f..%2fwebhooks",
)
AS_ANOTHER_USER = """
import json, sys, urllib.error, urllib.request
secret, prefect, mlflow = sys.argv[1:]
seen = {}
try:
    seen["secret"] = open(secret).read()
except OSError as error:
    seen["secret"] = type(error).__name__
for url in (prefect + "/api/flow_runs/filter", mlflow + "/api/2.0/mlflow/experiments/create"):
    request = urllib.request.Request(url, data=b'{"name": "x"}', headers={"content-type": "application/json"})
    try:
        seen[url] = urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        seen[url] = error.code
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


def request(servers: Servers, server: str, host: str, origin: str | None = None, **more: str) -> tuple[int, str]:
    """One request with the right login, as a browser that knows it would send it."""
    port = getattr(servers, server)
    login = base64.b64encode(":".join(servers.login).encode()).decode()
    method, path = more.pop("method", "GET"), more.pop("path", SEARCH if server == "mlflow" else "/api/admin/version")
    headers = {"Authorization": f"Basic {login}", "Connection": "close", "Content-Length": "0"}
    headers |= {"Origin": origin.format(port=port)} if origin is not None else {}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host.format(port=port)}"]
    return exchange(port, "\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]))


SERVERS = pytest.mark.parametrize("server", ["prefect", "mlflow"])


@SERVERS
def test_only_known_host_names_are_answered(servers: Servers, server: str):
    """A page whose host name was given a loopback address reaches nothing, whatever else it sends."""
    assert [host for host in OWN_NAMES if request(servers, server, host)[0] != 200] == []
    answers = {host: request(servers, server, host)[0] for host in OTHER_NAMES}
    assert [host for host, status in answers.items() if status not in (400, 403)] == []
    assert "DRIFTLINE_ALLOWED_HOSTS" in request(servers, server, "evil.example")[1]
    twice = request(servers, server, "127.0.0.1:{port}", X_Y="z\nHost: evil.example")
    assert twice[0] in (400, 403)


@SERVERS
def test_other_pages_are_refused_by_every_method(servers: Servers, server: str):
    """Also before a browser asks (OPTIONS), and although the login is right; its own page is answered."""
    host = "127.0.0.1:{port}"
    assert request(servers, server, host, "http://127.0.0.1:{port}")[0] == 200
    for method in METHODS:
        for origin in OTHER_ORIGINS:
            more = {"Access_Control_Request_Method": "POST"} if method == "OPTIONS" else {}
            status, text = request(servers, server, host, origin, method=method, **more)
            assert status == 403, (method, origin, status)
            assert "access-control-" not in text.lower()


@SERVERS
@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_what_a_browser_calls_foreign_is_refused(servers: Servers, server: str, site: str):
    """Images, scripts and frames have no Origin; a link that opens a tab of its own is followed."""
    fetch = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}
    link = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert request(servers, server, "localhost:{port}", **fetch)[0] == 403
    assert request(servers, server, "localhost:{port}", **{**link, "Sec_Fetch_Dest": "iframe"})[0] == 403
    assert request(servers, server, "localhost:{port}", method="POST", **link)[0] == 403
    assert request(servers, server, "localhost:{port}", path="/", **link)[0] in (200, 307)


@SERVERS
def test_no_response_lets_another_page_read_or_frame_it(servers: Servers, server: str):
    """Pages, data, errors and the health probe alike."""
    health = "/health" if server == "mlflow" else "/api/health"
    for path in ("/", health, "/nowhere", "/api/2.0/mlflow/runs/get", "/ui-settings", "/api/flows/x"):
        text = request(servers, server, "localhost:{port}", "http://localhost:{port}", path=path)[1].lower()
        assert "access-control-" not in text, path
        assert text.count("x-frame-options: sameorigin") == 1, path


def test_prefect_answers_nothing_without_the_login(servers: Servers):
    """Every path and method of its API but the probes; every WebSocket."""
    with servers.client(servers.prefect) as http:
        paths = http.get("/api/openapi.json").raise_for_status().json()["paths"]
    assert len(paths) > 100
    opened = []
    with servers.client(servers.prefect, login=False) as http:
        for path, methods in paths.items():
            for method in methods:
                url = "/api" + path.removeprefix("/api").replace("{", "").replace("}", "")
                if http.request(method, url, json={}).status_code != 401:
                    opened.append((method, path))
    assert sorted(opened) == [("get", "/health"), ("get", "/ready")]


@pytest.mark.parametrize("login", ["", "driftline:", ":", "driftline:wrong", "root:{secret}", "{secret}", "é:é"])
@SERVERS
def test_another_login_is_refused(servers: Servers, server: str, login: str):
    if server == "prefect" and not login.isascii():
        pytest.skip("Prefect's own comparison fails with status 500")
    sent = base64.b64encode(login.format(secret=servers.login[1]).encode()).decode()
    path = SEARCH if server == "mlflow" else "/api/admin/version"
    with servers.client(getattr(servers, server), login=False) as http:
        for scheme in ("Basic", "Bearer", "basic", ""):
            response = http.get(path, headers={"Authorization": f"{scheme} {sent}".strip()})
            assert response.status_code == 401, response.text
        assert http.get(path, headers={"Authorization": "Basic ###"}).status_code == 401


def test_every_websocket_of_prefect_is_tried():
    """A version of Prefect with another one is noticed."""
    folder = Path(find_spec("prefect").origin).parent / "server" / "api"
    found = [
        f"{path.stem}{route}"
        for path in folder.glob("*.py")
        for route in re.findall(r"@router\.websocket\(\s*\"([^\"]+)", path.read_text())
    ]
    assert sorted(found) == sorted(path.replace("work_pools/x/", "workers/{work_pool_name}/") for path in SOCKETS)


@pytest.mark.parametrize("path", SOCKETS)
def test_a_websocket_needs_own_origin_and_login(servers: Servers, path: str):
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    def messages(token: str | None, **more: str) -> str | None:
        """What the server says first to somebody with that token; None: it hangs up."""
        url = f"ws://127.0.0.1:{servers.prefect}/api/{path}"
        try:
            with connect(url, subprotocols=["prefect"], open_timeout=30, **more) as socket:
                socket.send(json.dumps({"type": "auth", "token": token}))
                return json.loads(socket.recv(timeout=30))["type"]
        except (ConnectionClosed, InvalidStatus):
            return None

    login = ":".join(servers.login)
    assert messages(login) == "auth_success"
    assert messages(login, origin=f"http://127.0.0.1:{servers.prefect}") == "auth_success"
    assert {messages(token) for token in (None, "", "wrong", servers.login[1])} == {None}
    for origin in OTHER_ORIGINS[:-1]:
        assert messages(login, origin=origin.format(port=servers.prefect)) is None, origin
    for headers in (f"Host: evil.example\n{UPGRADE}", f"Host: localhost\nOrigin: null\n{UPGRADE}"):
        assert exchange(servers.prefect, f"GET /api/{path} HTTP/1.1\n{headers}\n\n")[0] == 403
    status, text = exchange(servers.prefect, f"GET /api/{path} HTTP/1.1\nHost: localhost\n{UPGRADE}\n\n")
    assert status == 403 or "auth_success" not in text, "without its subprotocol it asked for no login"


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_what_mlflow_has_and_nobody_uses_is_off(servers: Servers, api: str):
    """Even with the login, by any method and however the path is written."""
    with servers.client(servers.mlflow) as http:
        for path in OFF:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                response = http.request(method, path.format(api=api), json={})
                assert (response.status_code, response.json()["detail"]) == (404, "This path is switched off."), path


def test_mlflow_asks_a_browser_for_the_login_and_works_with_it(servers: Servers):
    """Its page, search, a run with an artifact, the registry; only the probe is open."""
    with servers.client(servers.mlflow, login=False) as http:
        assert http.get("/health").text == "OK"
        for path in ("/", SEARCH, "/version", "/static-files/x", "/graphql", "/health/", "/health/../version"):
            response = http.get(path)
            assert response.status_code in (401, 404), path
        assert http.get("/").headers["www-authenticate"].startswith("Basic ")
        assert http.post("/health").status_code == 401
    variables = {"MLFLOW_TRACKING_USERNAME": servers.login[0], "MLFLOW_TRACKING_PASSWORD": servers.login[1]}
    code = (
        "import mlflow; from mlflow import MlflowClient\n"
        "with mlflow.start_run() as run: mlflow.log_metric('m', 1); mlflow.log_text('hello', 'a.txt')\n"
        "client = MlflowClient(); client.create_registered_model('model')\n"
        "print(client.get_run(run.info.run_id).data.metrics, client.search_registered_models()[0].name,\n"
        "      mlflow.artifacts.load_text(run.info.artifact_uri + '/a.txt'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{servers.mlflow}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["{'m': 1.0} model hello"], done.stdout + done.stderr


def test_another_user_of_the_machine_gets_nothing(servers: Servers, tmp_path_factory: pytest.TempPathFactory):
    """They can't read the secret, not even where all folders above it are open; and the servers refuse them."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    nobody = pwd.getpwnam("nobody")
    secret = servers.state / "secrets" / "prefect"
    for folder in (*servers.state.relative_to("/tmp").parents, servers.state.relative_to("/tmp")):
        os.chmod("/tmp" / folder, (os.stat("/tmp" / folder).st_mode & 0o7777) | 0o055)
    urls = [f"http://127.0.0.1:{port}" for port in (servers.prefect, servers.mlflow)]
    done = subprocess.run(
        [shutil.which("python3", path="/usr/bin") or sys.executable, "-c", AS_ANOTHER_USER, str(secret), *urls],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout).values()) == ["PermissionError", 401, 401]
    assert wait_for(lambda: secret.stat().st_mode & 0o777 == 0o600, 1)


@pytest.mark.parametrize("extra", ["driftline.example.org", "DRIFTLINE.example.org"])
def test_a_name_that_the_owner_allows_is_answered(extra: str):
    """With any port, as a proxy or a tunnel has; a name of which it is a part is not."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=ServerGuard(app, ["127.0.0.1", extra]))

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=transport) as http:
            hosts = ("driftline.example.org", "driftline.example.org:8443", "x.driftline.example.org", "example.org")
            return [(await http.get(f"https://{host}/")).status_code for host in hosts]

    import asyncio

    assert asyncio.run(statuses()) == [200, 200, 403, 403]
