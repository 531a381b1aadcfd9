"""The gateway's HTTP sessions to the processes of releases, by address: Unix sockets on this machine, TCP beyond it."""

from __future__ import annotations

# not httpx, as elsewhere: it needs 1.7 ms of processor time a request, aiohttp 0.3, and this is on every call's way
import aiohttp

from tasks.core.sockets import unix_socket_path

KEEP_ALIVE = 3.0  # seconds that we keep a connection; a server closes its end after 5, and must not while we send
LOCALHOST = "http://localhost"  # whom a request over a Unix socket names as its host


class ClientSessions:
    """One session for all TCP addresses, and one for each Unix socket. Use within a running loop, and close."""

    def __init__(self) -> None:
        self._by_socket: dict[str, aiohttp.ClientSession] = {}
        self._tcp = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, use_dns_cache=True))

    def to(self, address: str) -> tuple[aiohttp.ClientSession, str]:
        """The session for an address, and what URLs begin with in it."""
        path = unix_socket_path(address)
        if not path:
            return self._tcp, address
        if path not in self._by_socket:
            self._by_socket[path] = _session(aiohttp.UnixConnector(path, limit=0, keepalive_timeout=KEEP_ALIVE))
        return self._by_socket[path], LOCALHOST

    async def close(self) -> None:
        for session in (self._tcp, *self._by_socket.values()):
            await session.close()


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector, headers={"content-type": "application/json"}, auto_decompress=False, trust_env=False
    )
