"""The gateway's HTTP sessions to the processes of releases, by address: Unix sockets on this machine, TCP beyond it."""

from __future__ import annotations

# not httpx, as in other modules: it takes 1.7 ms of processor time a request, aiohttp 0.3, and every call pays it
import aiohttp

from tasks.core.sockets import unix_socket_path

KEEP_ALIVE = 3.0  # seconds; less than the 5 of the servers, which must not close a connection while we send
LOCALHOST = "http://localhost"  # the host that a request over a Unix socket names


class ClientSessions:
    """One session for all TCP addresses, and one for each Unix socket. Use within a running loop, and close."""

    def __init__(self) -> None:
        self._by_socket: dict[str, aiohttp.ClientSession] = {}
        self._tcp = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, use_dns_cache=True))

    def session_for(self, address: str) -> tuple[aiohttp.ClientSession, str]:
        """The session for an address, and the base of its URLs."""
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
