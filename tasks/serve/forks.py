"""The fork server: a release's process is a fork of one that has imported already what all releases need.

    python -m tasks.serve.forks
    python -I -S tasks/serve/forks.py BENTO HOST PORT

The first is the server. The second is what is supervised as the release: it holds the port, asks for the process that
answers there, for another one when that ends, and has it end with itself. It imports little, and so starts at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time

BACKLOG = 2048
SOON = 3  # seconds; when the first fork ends before, the release can't start
PAUSE = 0.5  # seconds until one that ended, or a server that does not answer yet, is asked for again
LONGEST = 1 << 20  # bytes of a fork's environment
SERVING = (
    "_bentoml_impl.loader",
    "_bentoml_impl.server.app",
    "_bentoml_impl.worker.service",
    "bentoml._internal.server.http.instruments",
    "bentoml._internal.server.http.traffic",
    "bentoml._internal.service.loader",
    "httpx",
    "opentelemetry.instrumentation.asgi",
    "opentelemetry.sdk.trace",
    "sklearn.ensemble",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
)
# Prometheus's client counts in files where there is such a folder when it is imported; a fork has files of its own.
COUNTS = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def serve(place: str) -> None:
    """Fork for whoever asks at the socket, for ever."""
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks here
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(place)
        listening.listen()
        while True:
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                answer(asking)
            asking.close()


def preload() -> None:
    """Import what releases have in common, but leave nothing of our own: that they have in their Bentos."""
    import gc
    import importlib
    import tempfile
    import warnings

    from tasks.features.light import import_feast
    from tasks.train.model_file import import_skops

    with tempfile.TemporaryDirectory() as counts:
        os.environ.update(dict.fromkeys(COUNTS, counts))
        import_skops()
        for name in SERVING:
            importlib.import_module(name)
        with warnings.catch_warnings():  # Feast would have all deprecations told, whoever's
            import_feast()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != os.getcwd()]
    gc.collect()
    gc.freeze()  # a collection in a fork would write to every page, and so copy it


def answer(asking: socket.socket) -> None:
    """Become the process that serves a Bento, until told to end."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, (listening, output), *_ = socket.recv_fds(asking, LONGEST, 2)
    wanted = json.loads(said)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["bento"])
    threading.Thread(target=_end_with, args=[asking], daemon=True).start()

    from _bentoml_impl.worker.service import main
    from bentoml.serving import ensure_prometheus_dir

    os.environ.update(dict.fromkeys(COUNTS, ensure_prometheus_dir()))
    main([wanted["bento"], "--fd", str(listening), "--worker-id", "1"])


def _end_with(asking: socket.socket) -> None:
    """End when the other side says no more, and at once when it is gone."""
    asking.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    gone = select.poll()
    gone.register(asking, 0)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def stand_for(place: str, bento: str, host: str, port: int) -> None:
    """Hold the port, and have a fork answer there, always; told to end, give it its time for what is under way."""
    listening = socket.create_server((host, port), backlog=BACKLOG)
    request = json.dumps({"bento": bento, "environment": dict(os.environ)}).encode()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    begun = None
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as fork:
            fork.connect(place)
            begun = begun or time.monotonic()
            socket.send_fds(fork, [request], [listening.fileno(), sys.stdout.fileno()])
            try:
                fork.recv(1)
            except SystemExit:
                listening.close()
                fork.shutdown(socket.SHUT_WR)
                fork.recv(1)
                raise
            if time.monotonic() - begun < SOON:
                sys.exit(1)
        time.sleep(PAUSE)


if __name__ == "__main__":
    beside = os.environ["SUPERVISOR_SERVER_URL"].removeprefix("unix://")  # where supervisord's own socket is
    socket_path = os.path.join(os.path.dirname(beside), "forks.sock")
    match sys.argv[1:]:
        case []:
            serve(socket_path)
        case bento_folder, host_address, its_port:
            stand_for(socket_path, bento_folder, host_address, int(its_port))
