"""A `bentoml serve` process that lives no longer than the block, or the process, that asked for it."""

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

from tasks.foundation.errors import Unavailable

# The system stops the server when we are killed, even with -9: circus, BentoML's process keeper, then stops its worker.
ORPHANS_STOP = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def serve_command(tag: str, host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]


@contextmanager
def served(
    tag: str, environment: Mapping[str, str], log: Path, *, host: str = "127.0.0.1", patience: float = 90
) -> Iterator[str]:
    """Serve a Bento on a free port and give its address once it is ready; stop it after the block.

    `environment` names BENTOML_HOME. Raises: Unavailable with the end of the log when it ends or is not ready in time.
    """
    port = free_port(host)
    address = f"http://{host}:{port}"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = serve_command(tag, host, port)
    if sys.platform == "linux":
        command = [sys.executable, "-c", ORPHANS_STOP, str(os.getpid()), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            wait_until_ready(f"{address}/readyz", tag, log, patience, lambda: process.poll() is None)
            yield address
        finally:
            _stop(process)


def wait_until_ready(url: str, what: str, log: Path, patience: float, alive: Callable[[], bool]) -> float:
    """Ask until a server answers 2xx, and give the seconds that took.

    Raises: Unavailable with the end of its log when it ends or is not ready in time.
    """
    import httpx

    start = time.monotonic()
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() - start < patience:
            try:
                if client.get(url).is_success:
                    return time.monotonic() - start
            except httpx.TransportError:
                pass
            if not alive():
                raise _not_ready(what, "its process ended", url, log)
            time.sleep(0.1)
    raise _not_ready(what, f"no answer in {patience:.0f} s", url, log)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error that names what went wrong."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16_384))
            return "\n".join(stream.read().decode(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""


def _not_ready(what: str, why: str, url: str, log: Path) -> Unavailable:
    return Unavailable(
        f"{what} did not get ready: {why}.",
        where=f"{url}, log {log}",
        found=tail(log) or "an empty log",
        todo="Correct what the log names, and start again.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started."""
    for end, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, end)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
