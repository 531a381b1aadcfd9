"""What is supervised as a release, while a fork of a fork server does the work.

    python -I -S services/serving/fork_client.py BENTO SOCKET        holds the socket, where a fork answers
    python -I -S services/serving/fork_client.py BENTO SOCKET alone  the same, where nothing forks

It imports little, and so starts at once. The fork ends with it.
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

CHUNK = 1 << 20  # bytes of what a fork is told, its environment above all
BACKLOG = 2048
SOON = 3  # seconds; when the first fork ends before, the release can't start
PAUSE = 0.5  # seconds until one that ended, or a server that does not answer yet, is asked for again


def fork_server_socket() -> str:
    """The socket of their fork server: beside the one of supervisord, which runs it and them."""
    beside = os.environ["SUPERVISOR_SERVER_URL"].removeprefix("unix://")
    return os.path.join(os.path.dirname(beside), "forks.sock")


@contextlib.contextmanager
def request_fork(place: str, bento: str, *held: int) -> Iterator[socket.socket]:
    """Have a fork serve this Bento, in our environment and with our output: to shut the socket down tells it to end.

    Raises: OSError when no server answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(place)
        said = json.dumps({"bento": bento, "environment": dict(os.environ)})
        socket.send_fds(asking, [said.encode()], [1, 2, *held])
        yield asking


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
    """Become the release's server, from nothing."""
    listening = listen(path)
    os.set_inheritable(listening.fileno(), True)
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "release_server.py")
    os.execv(sys.executable, [sys.executable, "-P", server, bento, str(listening.fileno())])


def supervise(place: str, bento: str, path: str) -> None:
    """Hold the socket, and have a fork answer there, always; told to end, give it its time for what is under way."""
    listening = listen(path)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    begun = None
    while True:
        with contextlib.suppress(OSError), request_fork(place, bento, listening.fileno()) as answering:
            begun = begun or time.monotonic()
            try:
                answering.recv(CHUNK)
            except SystemExit:
                listening.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                answering.shutdown(socket.SHUT_WR)
                answering.recv(CHUNK)
                raise
            if time.monotonic() - begun < SOON:
                sys.exit(1)
        time.sleep(PAUSE)


if __name__ == "__main__":
    bento_folder, socket_path, *alone = sys.argv[1:]
    if alone:
        serve_alone(bento_folder, socket_path)
    supervise(fork_server_socket(), bento_folder, socket_path)
