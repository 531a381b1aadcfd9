"""The supervised process of a release; a fork of the fork server does the work.

    python -I -S services/serving/fork_client.py BENTO SOCKET        listens, and a fork serves
    python -I -S services/serving/fork_client.py BENTO SOCKET alone  serves by itself, without a fork server

It imports little, so it starts at once. The fork ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator

CHUNK = 1 << 20  # most bytes of a request: a fork's environment
BACKLOG = 2048
STARTUP = 3  # seconds; when the first fork ends earlier, the release can't start
PAUSE = 0.5  # seconds before a fork is requested again


def fork_server_socket() -> str:
    """The socket of the fork server: beside that of supervisord, which runs it."""
    supervisor = os.environ["SUPERVISOR_SERVER_URL"].removeprefix("unix://")
    return os.path.join(os.path.dirname(supervisor), "forks.sock")


@contextlib.contextmanager
def request_fork(server: str, bento: str, *held: int) -> Iterator[socket.socket]:
    """Request a fork that serves this Bento with our environment and output; it ends when the socket is shut down.

    Raises: OSError when no server answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(server)
        request = json.dumps({"bento": bento, "environment": dict(os.environ)})
        socket.send_fds(connection, [request.encode()], [1, 2, *held])
        yield connection


def listen(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Listen on a Unix socket that only this user can connect to; the stale one of a killed process is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o077)
    listening.bind(path)
    os.umask(before)
    listening.listen(BACKLOG)
    return listening


def serve_alone(bento: str, path: str) -> None:
    """Become the release's server."""
    listening = listen(path)
    os.set_inheritable(listening.fileno(), True)
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "release_server.py")
    os.execv(sys.executable, [sys.executable, "-P", server, bento, str(listening.fileno())])


def supervise(server: str, bento: str, path: str) -> None:
    """Listen, and keep a fork serving; on SIGTERM, let the fork finish its requests."""
    listening = listen(path)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    begun = None
    while True:
        with contextlib.suppress(OSError), request_fork(server, bento, listening.fileno()) as connection:
            begun = begun or time.monotonic()
            try:
                connection.recv(CHUNK)
            except SystemExit:
                listening.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(CHUNK)
                raise
            if time.monotonic() - begun < STARTUP:
                sys.exit(1)
        time.sleep(PAUSE)


if __name__ == "__main__":
    bento_folder, socket_path, *alone = sys.argv[1:]
    if alone:
        serve_alone(bento_folder, socket_path)
    supervise(fork_server_socket(), bento_folder, socket_path)
