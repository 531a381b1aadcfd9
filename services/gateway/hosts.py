"""The allowed Host names: a web page whose DNS name was rebound to this machine sends its own name."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.store.api_error import ApiError
from tasks.core.hosts import host_name, is_loopback
from tasks.core.settings import Settings


class HostCheck:
    """ASGI middleware that refuses every request whose Host is not allowed, before any other check."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = settings.host_names
        self._is_allowed = lru_cache(1024)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not self._is_allowed(hosts[0], (scope.get("server") or ("",))[0]):
                refusal = _refusal(hosts)
                await JSONResponse(refusal.body, refusal.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _look_up(self, host: bytes, local: str) -> bool:
        """Allows loopback names and addresses, the address that was connected to, and the configured names."""
        name = host_name(host.decode("latin-1"))
        return name in self._names or is_loopback(name) or (name == local and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(hosts: list[bytes]) -> ApiError:
    if len(hosts) != 1:
        return ApiError(400, "A request must have one Host header.", code="wrong_host")
    host = hosts[0][:100].decode("latin-1")
    message = f"The gateway does not answer to the Host {host!r}: to allow a name, add it to DRIFTLINE_ALLOWED_HOSTS."
    return ApiError(421, message, code="wrong_host")
