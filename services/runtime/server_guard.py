"""A guard before Prefect's and MLflow's servers: it refuses other origins, other host names and unused paths.

A web page of any origin can send requests to a loopback port, and can give its own host name a loopback address. So a
request must name a known host, and one from a web page must come from this server's own pages.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from tasks.core.hosts import host_name

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/health"  # without login, for the supervisor
SET_ALWAYS = {
    b"x-frame-options": b"SAMEORIGIN",  # against clickjacking
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}


class ServerGuard:
    """An ASGI application before another one, for HTTP and WebSocket alike.

    hosts: allowed names and addresses in the Host header, without port. login: `user:password` for HTTP Basic; None:
    the application checks it. paths: the allowed paths; None: all.
    """

    def __init__(
        self,
        app: Application,
        hosts: Collection[str],
        login: str | None = None,
        paths: re.Pattern[str] | None = None,
    ) -> None:
        self.app = app
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._login = None if login is None else login.encode()
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if (refusal := self._refusal(scope)) is not None:
            await refuse(scope["type"], *refusal, send)
            return
        await self.app(scope, receive, _without_cors(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason for refusing a request; None: it is allowed."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = [host.lower() for host in headers.get(b"host", ())]
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return (
                403,
                f"Host {', '.join(hosts)[:100]} is not allowed. To allow a name, add it to DRIFTLINE_ALLOWED_HOSTS.",
            )
        own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
        if not own.issuperset(origin.lower() for origin in headers.get(b"origin", ())):
            return 403, "Requests of other pages are not allowed."
        if _is_of_another_page(scope, headers):
            return 403, "Requests of other pages are not allowed."
        if self._paths is not None and not self._paths.fullmatch(scope["path"]):
            return 404, "This path is switched off."
        if not self._is_logged_in(scope, headers.get(b"authorization", [])):
            return 401, "User and password are missing or wrong. To see them: driftline status."
        return None

    def _is_known(self, host: str) -> bool:
        return host_name(host) in self._hosts

    def _is_logged_in(self, scope: Scope, authorization: list[str]) -> bool:
        if self._login is None or (scope["path"] == HEALTH and scope.get("method") == "GET"):
            return True
        scheme, _, credentials = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        try:
            sent = b64decode(credentials.strip(), validate=True)
        except ValueError:
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(sent, self._login)


def _is_of_another_page(scope: Scope, headers: dict[bytes, list[str]]) -> bool:
    """Does the browser say so? A link that opens our page in a tab of its own is allowed."""

    def values(name: bytes) -> list[str]:
        return headers.get(name, [])

    if {"same-origin", "none"}.issuperset(values(b"sec-fetch-site")):
        return False
    opens_a_tab = values(b"sec-fetch-mode") == ["navigate"] and values(b"sec-fetch-dest") == ["document"]
    return not (opens_a_tab and scope.get("method") in ("GET", "HEAD"))


async def refuse(kind: str, status: int, reason: str, send: Send) -> None:
    """Answer a request with this status; closing a WebSocket before its acceptance answers with 403."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Driftline", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *SET_ALWAYS.items()]})
    await send({"type": "http.response.body", "body": body})


def _without_cors(send: Send) -> Send:
    """Remove the headers that would let other pages read a response."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            dropped = (b"access-control-", *SET_ALWAYS)
            others = [each for each in headers if not each[0].startswith(dropped)]
            message = {**message, "headers": [*others, *SET_ALWAYS.items()]}
        await send(message)

    return guarded
