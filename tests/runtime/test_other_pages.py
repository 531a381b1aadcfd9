"""Promise: in a real browser, a page of another origin neither reads nor changes anything at Prefect or MLflow."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.runtime.servers import Servers
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("servers")

# Each way by which a page can send something; what it gets to read is returned.
ATTEMPTS = """async ([method, url, body]) => {
    const read = [];
    const text = JSON.stringify(body);
    const tries = [
        {method, mode: "cors", headers: {"content-type": "application/json"}, body: text},
        {method, mode: "cors", credentials: "include", headers: {"content-type": "text/plain"}, body: text},
        {method, mode: "no-cors", credentials: "include", headers: {"content-type": "text/plain"}, body: text},
        {method, mode: "no-cors", credentials: "include", body: new URLSearchParams(body)},
    ];
    for (const each of tries) {
        if (method === "GET") delete each.body;
        if (each.mode === "no-cors" && !["GET", "POST"].includes(method)) continue;
        try {
            const response = await fetch(url, each);
            if (response.ok) read.push(await response.text());
        } catch (error) {}
    }
    if (method === "POST") navigator.sendBeacon(url, text);
    await new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.name = "frame";
        frame.onload = resolve;
        const form = document.createElement("form");
        Object.assign(form, {action: url, target: "frame", method: method === "GET" ? "GET" : "POST"});
        form.enctype = "text/plain";
        const input = document.createElement("input");
        Object.assign(input, {name: text.slice(0, -1) + ', "x": "', value: '"}'});
        form.append(input);
        document.body.append(frame, form);
        form.submit();
        setTimeout(resolve, 3000);
    });
    try {
        read.push(document.querySelector("iframe").contentDocument.body.innerText);
    } catch (error) {}
    document.body.replaceChildren();
    for (const kind of ["img", "script", "iframe"]) {
        await new Promise((resolve) => {
            const element = document.createElement(kind);
            element.onload = element.onerror = resolve;
            element.src = url;
            document.body.append(element);
            setTimeout(resolve, 3000);
        });
    }
    return read.filter((each) => each);
}"""
SOCKET = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url, "prefect");
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
})"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><body>a page of somebody else</body></html>")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def page_of_another_origin() -> Iterator[int]:
    """Its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for which evil.example is this machine."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    tools = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    with tools.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", rules])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def prey(browser: Any, servers: Servers) -> dict[str, str]:
    """A deployment and a run of it, which others would like to have."""
    with servers.client(servers.prefect) as http:
        flow = http.post("/api/flows/", json={"name": "a-flow"}).raise_for_status().json()["id"]
        body = {"name": "a-deployment", "flow_id": flow}
        deployment = http.post("/api/deployments/", json=body).raise_for_status().json()["id"]
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}  # it is never late
        created = (
            http.post(f"/api/deployments/{deployment}/create_flow_run", json={"state": later}).raise_for_status().json()
        )
    with servers.client(servers.mlflow) as http:
        http.post("/api/2.0/mlflow/experiments/create", json={"name": "an-experiment"}).raise_for_status()
    return {"deployment": deployment, "run": created["id"]}


def everything(servers: Servers) -> dict[str, Any]:
    """What could have been changed."""
    with servers.client(servers.prefect) as http:
        found = {
            kind: http.post(f"/api/{kind}/filter", json={}).raise_for_status().json()
            for kind in ("flow_runs", "deployments", "flows", "work_pools", "variables")
        }
    with servers.client(servers.mlflow) as http:
        search = {"max_results": 100, "view_type": "ALL"}
        found["experiments"] = http.get("/api/2.0/mlflow/experiments/search", params=search).raise_for_status().json()
    for run in found["flow_runs"]:
        run.pop("estimated_start_time_delta", None)  # it goes by the clock
    return found


def attempts(servers: Servers, prey: dict[str, str], host: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Start, read and change runs at Prefect; read and write at MLflow."""
    prefect, mlflow = (f"http://{host}:{port}" for port in (servers.prefect, servers.mlflow))
    command = {"job_variables": {"command": "touch /tmp/owned"}}
    return [
        ("POST", f"{prefect}/api/deployments/{prey['deployment']}/create_flow_run", command),
        ("POST", f"{prefect}/api/flow_runs/filter", {}),
        ("GET", f"{prefect}/api/flow_runs/{prey['run']}", {}),
        ("POST", f"{prefect}/api/flow_runs/{prey['run']}/set_state", {"state": {"type": "CANCELLED"}, "force": True}),
        ("PATCH", f"{prefect}/api/deployments/{prey['deployment']}", {"paused": True}),
        ("DELETE", f"{prefect}/api/flow_runs/{prey['run']}", {}),
        ("POST", f"{prefect}/api/variables/", {"name": "x", "value": "x"}),
        ("GET", f"{mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=10", {}),
        ("POST", f"{mlflow}/ajax-api/2.0/mlflow/experiments/create", {"name": "owned"}),
        ("GET", f"{mlflow}/get-artifact?path=x&run_uuid=x", {}),
        ("POST", f"{mlflow}/graphql", {"query": "{ mlflowSearchRuns { runs { info { runId } } } }"}),
    ]


@pytest.mark.parametrize("opened_at", ["another port", "another name", "a rebound name"])
def test_a_page_of_another_origin_gets_nothing(browser, servers: Servers, prey: dict[str, str], opened_at: str):
    """Not even in the browser of the owner, who has typed the login for MLflow into it."""
    before = everything(servers)
    own = {"username": servers.login[0], "password": servers.login[1]}
    with page_of_another_origin() as port:
        context = browser.new_context(http_credentials=own)  # answers each question for a password
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{servers.mlflow}/")
        name = "evil.example" if opened_at == "a rebound name" else "127.0.0.1"
        for method, url, body in attempts(servers, prey, name):
            address = {
                "another port": f"http://127.0.0.1:{port}/",
                "another name": f"http://evil.example:{port}/",
                "a rebound name": "/".join(url.split("/")[:3]) + "/",  # the page is of the very server's origin
            }[opened_at]
            page.goto(address)
            read = page.evaluate(ATTEMPTS, [method, url, body])
            assert not [text for text in read if "is not allowed" not in text and "not allowed" not in text], url
        for path in ("events/in", "events/out", "logs/out"):
            page.goto(f"http://evil.example:{port}/")
            assert page.evaluate(SOCKET, f"ws://{name}:{servers.prefect}/api/{path}") == "refused"
        context.close()
    assert everything(servers) == before


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_own_pages_work_with_the_login(browser, servers: Servers, prey: dict[str, str], name: str):
    """Prefect's page asks for it, lists the run and starts another; MLflow's shows the experiment."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    refused: list[str] = []
    page.on("response", lambda each: refused.append(each.url) if each.status == 403 else None)
    page.goto(f"http://{name}:{servers.prefect}/")
    page.get_by_placeholder("admin:pass").fill(":".join(servers.login))
    page.get_by_role("button", name="Login").click()
    page.get_by_text("Dashboard").first.wait_for()
    page.goto(f"http://{name}:{servers.prefect}/deployments/deployment/{prey['deployment']}")
    page.get_by_text("a-deployment").first.wait_for()
    runs = len(everything(servers)["flow_runs"])
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.get_by_text("Quick run").click()
    assert wait_for(lambda: len(everything(servers)["flow_runs"]) > runs, 30)
    context.close()

    with_login = browser.new_context(http_credentials=dict(zip(("username", "password"), servers.login, strict=True)))
    page = with_login.new_page()
    page.set_default_timeout(60_000)
    page.on("response", lambda each: refused.append(each.url) if each.status == 403 else None)
    page.goto(f"http://{name}:{servers.mlflow}/#/experiments")
    page.get_by_text("an-experiment").first.wait_for()
    with_login.close()
    assert not refused
