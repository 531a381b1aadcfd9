"""A process that serves a Bento, and ends with the block, or the process, that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import Unavailable
from tasks.core.files import tail
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT
from tasks.core.sockets import UNIX_SCHEME, http_client, private_temporary_folder, split_url


def free_port(host: str = "127.0.0.1") -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def serve_command(bento: Path, path: Path) -> list[str]:
    """The command that serves a Bento's folder on a Unix socket."""
    client = ROOT / "services" / "serving" / "fork_client.py"
    return [sys.executable, "-I", "-S", str(client), str(bento), str(path), "alone"]


@contextmanager
def serve_bento(bento: Path, environment: Mapping[str, str], log: Path, *, timeout: float = 90) -> Iterator[str]:
    """Serve a Bento on a Unix socket; yields its address once it is ready, and stops it after the block.

    Raises: Unavailable with the end of the log when it ends or is not ready in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with private_temporary_folder() as home, log.open("wb") as output:
        path = Path(home) / "release.sock"
        address = f"{UNIX_SCHEME}{path}"
        process = subprocess.Popen(
            with_parent_death_signal(serve_command(bento, path)),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **environment,
                "BENTOML_HOME": home,
            },  # a server deletes the metrics in its home when it starts
            start_new_session=True,
        )
        try:
            wait_until_ready(f"{address}/readyz", f"Bento {bento.name}", log, timeout, lambda: process.poll() is None)
            yield address
        finally:
            _stop(process)


def wait_until_ready(
    url: str, name: str, log: Path, timeout: float, alive: Callable[[], bool], since: int = 0
) -> float:
    """Poll a server until it answers 2xx; returns the seconds. Its log counts from byte `since`.

    Raises: Unavailable with the end of its log when it ends or is not ready in time.
    """
    import httpx

    start = time.monotonic()
    address, path = split_url(url)
    with http_client(address, timeout=5) as client:
        while time.monotonic() - start < timeout:
            try:
                if client.get(path).is_success:
                    return time.monotonic() - start
            except httpx.TransportError:
                pass
            # BentoML would retry for ever
            if not alive() or "Application startup failed" in tail(log, lines=1000, since=since):
                raise _not_ready(name, "it could not start", url, log)
            time.sleep(0.1)
    raise _not_ready(name, f"no answer in {timeout:.0f} s", url, log)


def _not_ready(name: str, reason: str, url: str, log: Path) -> Unavailable:
    return Unavailable(
        f"{name} did not get ready: {reason}.",
        where=f"{url}, log {log}",
        found=tail(log) or "an empty log",
        todo="Correct what the log names, and restart.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process and its children."""
    for number, timeout in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
