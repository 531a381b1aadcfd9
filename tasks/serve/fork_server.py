"""The fork server of releases: the process of each is a fork of one that has imported already what all of them need.

    python -m tasks.serve.fork_server

Who wants a fork runs `forks.py`, which asks at the socket.
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
from collections.abc import Callable, Sequence

from tasks.serve.forks import CHUNK, listen, place_of_releases
from tasks.serve.release_server import serve as serve_release

SERVING = """
    _bentoml_impl.loader _bentoml_impl.server.app
    bentoml._internal.server.http.instruments bentoml._internal.server.http.traffic bentoml._internal.service.loader
    httpx opentelemetry.instrumentation.asgi opentelemetry.sdk.trace sklearn.ensemble uvicorn.lifespan.on
    uvicorn.loops.uvloop uvicorn.protocols.http.httptools_impl
"""
# Prometheus's client counts in files where there is such a folder when it is imported; a fork has files of its own.
COUNTS = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
Become = Callable[[Sequence[str], Sequence[int]], None]  # given arguments, and sockets that it is to hold


def serve(place: str, preload: Callable[[], None], become: Become, idle: float | None = None) -> None:
    """Fork for whoever asks at the socket, for ever; or, preloaded for the first of them, until idle for so long."""
    forks: dict[int, socket.socket] = {}
    ready = idle is None
    if ready:
        preload()
    signal.signal(signal.SIGCHLD, lambda *_: _tell_how_they_ended(forks))
    with listen(place, socket.SOCK_SEQPACKET) as listening:
        while True:
            listening.settimeout(idle if ready else None)
            try:
                asking, _ = listening.accept()
            except TimeoutError:
                if forks:
                    continue
                return
            if not ready:
                preload()
                ready = True
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                for other in (listening, *forks.values()):
                    other.close()
                _answer(asking, become)
                sys.exit()
            forks[pid] = asking
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _tell_how_they_ended(forks: dict[int, socket.socket]) -> None:
    for pid in [*forks]:  # what is imported may have children of its own
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forks.pop(pid) as asking, contextlib.suppress(OSError):
                asking.send(str(os.waitstatus_to_exitcode(status)).encode())


def _answer(asking: socket.socket, become: Become) -> None:
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
    os.chdir(wanted["directory"])
    threading.Thread(target=_end_with, args=[asking], daemon=True).start()
    become(wanted["arguments"], held)


def _end_with(asking: socket.socket) -> None:
    """End when the other side says no more, and at once when it is gone."""
    asking.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    gone = select.poll()
    gone.register(asking, 0)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def import_all(names: str) -> None:
    """Import packages, but leave nothing of our own: a fork has its own version of that."""
    import gc

    from tasks.features.light import import_feast
    from tasks.foundation.children import look_for_garbage_seldom
    from tasks.train.model_file import import_skops

    look_for_garbage_seldom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast would have all deprecations told, whoever's
        import_skops()
        for name in names.split():
            importlib.import_module(name)
        import_feast()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flows", "tasks")]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # a collection in a fork would write to every page, and so copy it


def _import_for_releases() -> None:
    with tempfile.TemporaryDirectory() as counts:
        os.environ.update(dict.fromkeys(COUNTS, counts))
        import_all(SERVING)
    sys.path[:] = [path for path in sys.path if path != os.getcwd()]  # our code they have in their Bentos


def _serve_bento(arguments: Sequence[str], held: Sequence[int]) -> None:
    from bentoml.serving import ensure_prometheus_dir

    os.environ.update(dict.fromkeys(COUNTS, ensure_prometheus_dir()))
    serve_release(arguments[0], socket.socket(fileno=held[0]))


if __name__ == "__main__":
    serve(place_of_releases(), _import_for_releases, _serve_bento)
