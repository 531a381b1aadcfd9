"""Prefect's and MLflow's servers as the stack starts them, with a state folder of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.runtime.prefect_database import seed
from services.serving.process import free_port, wait_until_ready
from tasks.core.local_secrets import local_secret
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import AUTH_STRINGS
from tests.conftest import ROOT

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
OTHER_ORIGINS = (
    "http://evil.example",
    "https://evil.example:{port}",
    "http://127.0.0.1:1",
    "http://localhost:{port}",
    "http://127.0.0.1",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1:{port}@evil.example",
    "http://user@127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}",
    "chrome-extension://abcdef",
    "null",
    "file://",
    "*",
    "",
)
SERVERS = pytest.mark.parametrize("server", ["prefect", "mlflow"])


@dataclass(frozen=True)
class Servers:
    """Both servers, which run, and the login for them."""

    state: Path
    prefect: int  # its port
    mlflow: int
    login: tuple[str, str]

    def client(self, port: int, login: bool = True) -> httpx.Client:
        own = {"auth": self.login} if login else {}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False, timeout=30, **own)


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Start both servers, and stop them at the end."""
    state, ports = folder / "state", (free_port(), free_port())
    (state / "prefect").mkdir(parents=True)
    seed(state / "prefect")
    values = {"STATE": state, "DATA": folder / "data", "PREFECT_PORT": ports[0], "MLFLOW_PORT": ports[1]}
    variables = {name: value for name, value in os.environ.items() if name not in AUTH_STRINGS}
    variables |= {f"DRIFTLINE_{name}": str(value) for name, value in values.items()}
    variables |= {"PREFECT_UI_API_URL": "/api"}
    commands = {
        "prefect": ["services.runtime.prefect_server", "127.0.0.1", str(ports[0])],
        "mlflow": ["services.runtime.mlflow_server", str(ports[1])],
    }
    with ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            processes[name] = subprocess.Popen(
                with_parent_death_signal([sys.executable, "-m", *command]),
                cwd=ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(processes[name].wait)
            stack.callback(processes[name].kill)
        for (name, process), port, health in zip(processes.items(), ports, ("/api/health", "/health"), strict=True):
            url = f"http://127.0.0.1:{port}{health}"
            wait_until_ready(url, name, folder / f"{name}.log", 120, lambda process=process: process.poll() is None)
        yield Servers(state, *ports, ("driftline", local_secret(state, "prefect")))


def exchange(port: int, request: str) -> tuple[int, str]:
    """Send a request as it is written, and give the response's status and text (its beginning, of a WebSocket)."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode("latin-1"))
        received = b""
        while part := connection.recv(65536):
            received += part
            if received.startswith(b"HTTP/1.1 101"):
                break
    return int(received.split(b" ", 2)[1]), received.decode("latin-1")
