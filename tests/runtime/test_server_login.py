"""Promise: Prefect's and MLflow's servers let in who has the login and nobody else, and what is unused is off."""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runtime.servers import OTHER_ORIGINS, SEARCH, SERVERS, Servers, exchange

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


def test_mlflow_asks_a_browser_for_the_login_and_works_with_it(servers: Servers, monkeypatch, tmp_path):
    """Its page, search, a run with an artifact, the registry; only the probe is open."""
    with servers.client(servers.mlflow, login=False) as http:
        assert http.get("/health").text == "OK"
        for path in ("/", SEARCH, "/version", "/static-files/x", "/graphql", "/health/", "/health/../version"):
            response = http.get(path)
            assert response.status_code in (401, 404), path
        assert http.get("/").headers["www-authenticate"].startswith("Basic ")
        assert http.post("/health").status_code == 401
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", servers.login[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", servers.login[1])
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{servers.mlflow}")
    run = client.create_run("0").info.run_id
    client.log_metric(run, "m", 1)
    client.log_text(run, "hello", "a.txt")
    client.create_registered_model("model")
    assert client.get_run(run).data.metrics == {"m": 1.0}
    assert [model.name for model in client.search_registered_models()] == ["model"]
    assert Path(client.download_artifacts(run, "a.txt", str(tmp_path))).read_text() == "hello"


def test_another_user_of_the_machine_gets_nothing(servers: Servers):
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
    assert secret.stat().st_mode & 0o777 == 0o600
