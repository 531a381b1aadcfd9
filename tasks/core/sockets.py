"""Unix sockets in private folders, and HTTP clients over a Unix socket or TCP."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import Unavailable
from tasks.core.files import temporary_folder

if TYPE_CHECKING:
    import httpx

MAX_SOCKET_PATH = 90  # bytes; the system's limit is 108 (macOS: 104), and supervisord appends some
UNIX_SCHEME, SUFFIX = "unix://", ".sock"  # the address of a server on a Unix socket: unix:///path.sock


def short_socket_path(folder: Path, name: str) -> Path:
    """A socket path in the folder, or in a short private folder where that path is too long for a socket."""
    path = folder / name
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"driftline-{os.getuid()}-{digest}" / name


def make_socket_folder(path: Path) -> None:
    """Create the private folder of a socket.

    Raises: Unavailable when another user owns it, who could replace the socket.
    """
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise Unavailable(
            "The folder for a socket belongs to another user, or is not a folder.",
            where=str(folder),
            found=f"owner {status.st_uid}",
            allowed=f"a folder of user {os.getuid()}",
            todo="Set DRIFTLINE_STATE to a folder of your own with a shorter path.",
        )
    folder.chmod(0o700)


def private_temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A private temporary folder with a path that is short enough for sockets."""
    long = len(os.fsencode(tempfile.gettempdir())) > MAX_SOCKET_PATH - 40
    return temporary_folder("serve", Path("/tmp") if long else None)


def unix_socket_path(address: str) -> str:
    """The socket path of a unix:// address; empty for any other address."""
    return address.removeprefix(UNIX_SCHEME) if address.startswith(UNIX_SCHEME) else ""


def split_url(url: str) -> tuple[str, str]:
    """The address of a server, and the path of a request to it."""
    if url.startswith(UNIX_SCHEME):
        path, suffix, rest = url.partition(SUFFIX)
        return f"{path}{suffix}", rest or "/"
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", f"{slash}{path}" or "/"


def http_client(address: str, **options: Any) -> httpx.Client:
    """A client for a local server at unix:///path.sock or http://host:port; paths of requests begin with a slash.

    It ignores proxies of the environment and trusts no certificate: it is for this machine's own servers.
    """
    import ssl

    import httpx

    path = unix_socket_path(address)
    # an empty trust store: httpx would read the certificates of all authorities, which takes 40 ms
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.HTTPTransport(uds=path, verify=context) if path else None
    base_url = "http://localhost" if path else address
    return httpx.Client(base_url=base_url, transport=transport, trust_env=False, verify=context, **options)
