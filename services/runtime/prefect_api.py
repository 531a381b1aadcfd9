"""Access to Prefect's server: with its login, and never to a program of another user in its place."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

from services.runtime.compat import reload_prefect_settings
from tasks.core.errors import Unavailable
from tasks.core.peer import socket_user
from tasks.core.settings import AUTH_STRINGS, LOGIN_USER, settings

TAG = "driftline"  # of each run of this platform
TIMEOUT = 20.0  # seconds that a busy server may take to answer


def reach_prefect() -> bool:
    """Use the Prefect server of the settings if it answers; without one, Prefect starts its own.

    A closed port is known at once. A busy server gets time to answer, as starting another would take longer.

    Raises: Unavailable when the server refuses the configured auth string.
    """
    config = settings()
    if not config.prefect_url and config.prefect_auth:
        require_own_server(config.host, config.prefect_port)
    request = urllib.request.Request(f"{config.prefect_api}/admin/version", headers=config.prefect_headers)
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise Unavailable(
                "Prefect's server refuses the auth string.",
                where=config.prefect_api,
                found="another auth string" if config.prefect_headers else "no auth string",
                todo="Set PREFECT_SERVER_API_AUTH_STRING (for an external server: PREFECT_API_AUTH_STRING) in .env.",
            ) from error
        return False
    except OSError:
        return False
    os.environ["PREFECT_API_URL"] = config.prefect_api
    if config.prefect_auth:  # it may be newer than this process
        os.environ["PREFECT_API_AUTH_STRING"] = config.prefect_auth
    return True


def require_own_server(host: str, port: int) -> None:
    """Check which user listens there before the login is sent: another user may take the port of a stopped stack.

    Raises: Unavailable when it is a program of another user. Only Linux tells the user.
    """
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=TIMEOUT) as probe:
        probe.sendall(f"GET /api/health HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        probe.recv(1)  # from now on, the connection has an owner
        user = socket_user(probe.getpeername()[:2], probe.getsockname()[:2])
        if sys.platform == "linux" and user != os.getuid():
            raise Unavailable(
                "Another user's program listens at the port of this stack's Prefect server.",
                where=f"{host}:{port}",
                found="a program of an unknown user" if user is None else f"a program of user {user}",
                allowed=f"one of user {os.getuid()}, which `driftline up` starts",
                todo="End that program, or set DRIFTLINE_PREFECT_PORT to another port.",
            )


@contextlib.contextmanager
def ephemeral_server_login() -> Iterator[None]:
    """Protect the server that Prefect starts for this run with a random login."""
    before = {name: os.environ[name] for name in AUTH_STRINGS if name in os.environ}
    login = settings().prefect_auth or f"{LOGIN_USER}:{secrets.token_urlsafe(32)}"
    os.environ.update(dict.fromkeys(AUTH_STRINGS, login))
    reload_prefect_settings()
    try:
        yield
    finally:
        for name in AUTH_STRINGS:
            os.environ.pop(name)
        os.environ.update(before)
