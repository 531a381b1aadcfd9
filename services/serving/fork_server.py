"""The fork server of releases: a process with all imports; each release is a fork of it.

    python -m services.serving.fork_server

`fork_client.py` requests a fork at its socket.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import warnings

from services.serving.compat import PRELOADED, metrics_folder
from services.serving.fork_client import CHUNK, fork_server_socket, listen
from services.serving.release_server import serve as serve_release

# With such a folder at import, Prometheus's client counts in files; each fork has files of its own.
METRICS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def serve(path: str) -> None:
    """Fork for each request at the socket, forever."""
    forks: dict[int, socket.socket] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _reap_children(forks))
    with listen(path, socket.SOCK_SEQPACKET) as listening:
        while True:
            connection, _ = listening.accept()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                for other in (listening, *forks.values()):
                    other.close()
                _run_child(connection)
                sys.exit()
            forks[pid] = connection
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _reap_children(forks: dict[int, socket.socket]) -> None:
    for pid in [*forks]:  # imported packages may have children of their own
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forks.pop(pid) as connection, contextlib.suppress(OSError):
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run_child(connection: socket.socket) -> None:
    """Serve a Bento in this fork, until it ends or the client closes the connection."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    message, (output, errors, *listening), *_ = socket.recv_fds(connection, CHUNK, 3)
    request = json.loads(message)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["bento"])
    threading.Thread(target=_exit_with_parent, args=[connection], daemon=True).start()
    _serve_bento(request["bento"], listening[0])


def _exit_with_parent(connection: socket.socket) -> None:
    """End when the client shuts the connection down, and at once when it is gone."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    gone = select.poll()
    gone.register(connection, 0)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def preload() -> None:
    """Import the packages, without modules of Driftline: a release has its own version in its Bento."""
    import gc

    from tasks.core.processes import tune_gc
    from tasks.features.feast_import import import_feast
    from tasks.train.tabular.model_file import import_skops

    tune_gc()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.environ.update(dict.fromkeys(METRICS_VARIABLES, folder))
        warnings.simplefilter("ignore")  # Feast turns on all deprecation warnings
        import_skops()
        for name in PRELOADED:
            importlib.import_module(name)
        import_feast()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("services", "tasks")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != os.getcwd()]
    gc.collect()
    gc.freeze()  # garbage collection in a fork would write to each page, and so copy it


def _serve_bento(bento: str, descriptor: int) -> None:
    os.environ.update(dict.fromkeys(METRICS_VARIABLES, metrics_folder()))
    serve_release(bento, socket.socket(fileno=descriptor))


if __name__ == "__main__":
    preload()
    serve(fork_server_socket())
