"""The fork server: a process of ours is a fork of one that has imported already what all of its kind need.

    python -m tasks.serve.fork_server releases
    python -m tasks.serve.fork_server runs SOCKET

Who wants a fork runs `forks.py`, which asks at the socket.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence

from tasks.serve.forks import CHUNK, RELEASES, RUNS, place_of_releases

IDLE = 600.0  # seconds until a server of runs gives its 500 MB back
IMPORTS = {
    RELEASES: """
        _bentoml_impl.loader _bentoml_impl.server.app _bentoml_impl.worker.service
        bentoml._internal.server.http.instruments bentoml._internal.server.http.traffic bentoml._internal.service.loader
        httpx opentelemetry.instrumentation.asgi opentelemetry.sdk.trace sklearn.ensemble uvicorn.lifespan.on
        uvicorn.loops.uvloop uvicorn.protocols.http.httptools_impl uvicorn.protocols.websockets.auto
    """,
    RUNS: """
        dvc.repo evidently great_expectations great_expectations.expectations httpx matplotlib.figure mlflow.sklearn
        prefect.deployments.steps.core prefect.flow_engine prefect.task_engine psutil sklearn.ensemble
        sklearn.linear_model
    """,
}
# Prometheus's client counts in files where there is such a folder when it is imported; a fork has files of its own.
COUNTS = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def serve(kind: str, place: str) -> None:
    """Fork for whoever asks at the socket. Runs come seldom: what they need is imported for the first of them."""
    forks: dict[int, socket.socket] = {}
    ready = kind != RUNS
    if ready:
        preload(kind)
    signal.signal(signal.SIGCHLD, lambda *_: _tell_how_they_ended(forks))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(place)
        listening.listen()
        while True:
            listening.settimeout(IDLE if kind == RUNS and ready else None)
            try:
                asking, _ = listening.accept()
            except TimeoutError:
                if forks:
                    continue
                return  # who started it starts it again, as small as it was
            if not ready:
                preload(kind)
                ready = True
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                for other in (listening, *forks.values()):
                    other.close()
                become(kind, asking)
                sys.exit()
            forks[pid] = asking
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _tell_how_they_ended(forks: dict[int, socket.socket]) -> None:
    for pid in [*forks]:  # what is imported may have children of its own
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forks.pop(pid) as asking, contextlib.suppress(OSError):
                asking.send(str(os.waitstatus_to_exitcode(status)).encode())


def preload(kind: str) -> None:
    """Import what they have in common, but leave nothing of our own: releases have that in Bentos, runs in commits."""
    import gc

    from tasks.features.light import import_feast
    from tasks.train.model_file import import_skops

    with tempfile.TemporaryDirectory() as counts, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast would have all deprecations told, whoever's
        if kind != RUNS:
            os.environ.update(dict.fromkeys(COUNTS, counts))
            sys.path[:] = [path for path in sys.path if path != os.getcwd()]
        import_skops()
        for name in IMPORTS[kind].split():
            importlib.import_module(name)
        import_feast()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # a collection in a fork would write to every page, and so copy it


def become(kind: str, asking: socket.socket) -> None:
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
    {RUNS: _run}.get(kind, _answer)(wanted["arguments"], held)


def _end_with(asking: socket.socket) -> None:
    """End when the other side says no more, and at once when it is gone."""
    asking.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    gone = select.poll()
    gone.register(asking, 0)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def _answer(arguments: Sequence[str], held: Sequence[int]) -> None:
    """Serve a Bento on a socket that is held already."""
    from _bentoml_impl.worker.service import main
    from bentoml.serving import ensure_prometheus_dir

    os.environ.update(dict.fromkeys(COUNTS, ensure_prometheus_dir()))
    main([*arguments, "--fd", str(held[0]), "--worker-id", "1"])


def _run(arguments: Sequence[str], _: Sequence[int]) -> None:
    """Do what `python -m` does in a new process: read its variables, and look for code where they say."""
    import numpy as np
    from prefect.context import refresh_global_settings_context

    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    np.random.seed()  # else every fork draws the same
    refresh_global_settings_context()
    sys.argv = [*arguments]
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] if sys.argv[1] == RUNS else place_of_releases())
