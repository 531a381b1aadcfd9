"""Promise: Prefect's and MLflow's servers answer no other page and no unknown host name, not even with the login."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from services.runtime.server_guard import ServerGuard
from tests.runtime.servers import OTHER_ORIGINS, SEARCH, SERVERS, Servers, exchange

pytestmark = pytest.mark.xdist_group("servers")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
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

    assert asyncio.run(statuses()) == [200, 200, 403, 403]
