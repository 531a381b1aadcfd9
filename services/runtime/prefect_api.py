"""Prefect's server as our processes reach it: with its login, and never a program of another user in its place."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

from tasks.core.errors import Unavailable
from tasks.core.peer import socket_user
from tasks.core.settings import AUTH_STRINGS, LOGIN_USER, settings

TAG = "driftline"  # of each of our runs
TIMEOUT = 20.0  # seconds that a busy server may take to say that it is there


def reach_prefect() -> bool:
    """Point this process at the Prefect server of the settings when it answers; without one, Prefect starts its own.

    Where nobody listens that is known at once; one that is busy is waited for, as a server of our own takes longer.

    Raises: Unavailable when the server demands another auth string than ours.
    """
    here = settings()
    if not here.prefect_url and here.prefect_auth:
        require_own_server(here.host, here.prefect_port)
    asked = urllib.request.Request(f"{here.prefect_api}/admin/version", headers=here.prefect_headers)
    try:
        urllib.request.urlopen(asked, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise Unavailable(
                "Prefect's server refuses us.",
                where=here.prefect_api,
                found="another auth string" if here.prefect_headers else "no auth string",
                todo="Set PREFECT_SERVER_API_AUTH_STRING (of a server elsewhere: PREFECT_API_AUTH_STRING) in .env.",
            ) from error
        return False
    except OSError:
        return False
    os.environ["PREFECT_API_URL"] = here.prefect_api
    if here.prefect_auth:  # it may be newer than this process
        os.environ["PREFECT_API_AUTH_STRING"] = here.prefect_auth
    return True


def require_own_server(host: str, port: int) -> None:
    """Look who listens there before our login is sent: while the stack is down, another user may take its port.

    Raises: Unavailable when it is not a program of this user's. Systems other than Linux don't tell.
    """
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=TIMEOUT) as probe:
        probe.sendall(f"GET /api/health HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        probe.recv(1)  # from here on, the connection has an owner
        user = socket_user(probe.getpeername()[:2], probe.getsockname()[:2])
        if sys.platform == "linux" and user != os.getuid():
            raise Unavailable(
                "Another user's program listens at the port of our Prefect server.",
                where=f"{host}:{port}",
                found="a program of nobody known" if user is None else f"a program of user {user}",
                allowed=f"one of user {os.getuid()}, which `driftline up` starts",
                todo="End that program, or set DRIFTLINE_PREFECT_PORT to another port.",
            )


@contextlib.contextmanager
def ephemeral_server_login() -> Iterator[None]:
    """Have the server that Prefect starts for this run ask for a login, which nobody else knows."""
    from prefect.context import refresh_global_settings_context

    before = {name: os.environ[name] for name in AUTH_STRINGS if name in os.environ}
    login = settings().prefect_auth or f"{LOGIN_USER}:{secrets.token_urlsafe(32)}"
    os.environ.update(dict.fromkeys(AUTH_STRINGS, login))
    refresh_global_settings_context()
    try:
        yield
    finally:
        for name in AUTH_STRINGS:
            os.environ.pop(name)
        os.environ.update(before)
