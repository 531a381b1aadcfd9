"""The fork server of releases: the process of each is a fork of one that has imported already what all of them need.

    python -m services.serving.fork_server

Who wants a fork runs `fork_client.py`, which asks at the socket.
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

# Prometheus's client counts in files where there is such a folder when it is imported; a fork has files of its own.
METRICS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def serve(place: str) -> None:
    """Fork for whoever asks at the socket, for ever."""
    forks: dict[int, socket.socket] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _reap_children(forks))
    with listen(place, socket.SOCK_SEQPACKET) as listening:
        while True:
            asking, _ = listening.accept()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                for other in (listening, *forks.values()):
                    other.close()
                _run_child(asking)
                sys.exit()
            forks[pid] = asking
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _reap_children(forks: dict[int, socket.socket]) -> None:
    for pid in [*forks]:  # what is imported may have children of its own
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forks.pop(pid) as asking, contextlib.suppress(OSError):
                asking.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run_child(asking: socket.socket) -> None:
    """Be the process that was asked for, until it ends or is told to."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    said, (output, errors, *held), *_ = socket.recv_fds(asking, CHUNK, 3)
    wanted = json.loads(said)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["bento"])
    threading.Thread(target=_exit_with_parent, args=[asking], daemon=True).start()
    _serve_bento(wanted["bento"], held[0])


def _exit_with_parent(asking: socket.socket) -> None:
    """End when the other side says no more, and at once when it is gone."""
    asking.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    gone = select.poll()
    gone.register(asking, 0)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def preload() -> None:
    """Import packages, but leave nothing of our own: a release has its own version of that in its Bento."""
    import gc

    from tasks.core.processes import tune_gc
    from tasks.features.feast_import import import_feast
    from tasks.train.tabular.model_file import import_skops

    tune_gc()
    with tempfile.TemporaryDirectory() as counts, warnings.catch_warnings():
        os.environ.update(dict.fromkeys(METRICS_VARIABLES, counts))
        warnings.simplefilter("ignore")  # Feast would have all deprecations told, whoever's
        import_skops()
        for name in PRELOADED:
            importlib.import_module(name)
        import_feast()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("services", "tasks")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != os.getcwd()]
    gc.collect()
    gc.freeze()  # a collection in a fork would write to every page, and so copy it


def _serve_bento(bento: str, held: int) -> None:
    os.environ.update(dict.fromkeys(METRICS_VARIABLES, metrics_folder()))
    serve_release(bento, socket.socket(fileno=held))


if __name__ == "__main__":
    preload()
    serve(fork_server_socket())
