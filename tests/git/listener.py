"""Who listens where Prefect's server should, so that a test decides what it answers; and a bare repository's clone."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DEPLOYMENT = "9b2a4f0e-0000-4000-8000-000000000001"


class Listener(ThreadingHTTPServer):
    """Answers as Prefect does to whoever has a push's run created."""

    def __init__(self, port: int, auth: str = "", status: int = 201) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.auth, self.status = auth, status
        self.received: list[dict[str, Any]] = []

    @property
    def refs(self) -> list[str]:
        return [body["parameters"]["request"]["ref"] for body in self.received]


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        found = self.path == "/api/deployments/name/push/push"
        self._answer(200 if found else 404, {"id": DEPLOYMENT, "name": "push", "entrypoint": 'with "id":"x"'})

    def do_POST(self) -> None:
        assert self.path == f"/api/deployments/{DEPLOYMENT}/create_flow_run"
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self._answer(self.server.status, {"id": "1"}):
            self.server.received.append(body)

    def _answer(self, status: int, body: dict[str, Any]) -> bool:
        wanted = f"Basic {base64.b64encode(self.server.auth.encode()).decode()}" if self.server.auth else None
        if self.headers.get("authorization") != wanted:
            status = 401
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body, separators=(",", ":")).encode())
        return status == 201

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def prefect_at(port: int, **answers: Any) -> Iterator[Listener]:
    listener = Listener(port, **answers)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield listener
    finally:
        listener.shutdown()
        listener.server_close()


def git(folder: Path, *arguments: str) -> str:
    """What git says, as somebody whose own settings have no part in it."""
    own = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *own, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, **files: str) -> str:
    """Write files, each named by its path with __ for a slash and the last _ for a dot, and give their commit."""
    for name, text in files.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a change")
    return git(folder, "rev-parse", "HEAD")


def repositories(folder: Path) -> tuple[Path, Path]:
    """A bare repository, and a clone of it with one commit on main that was pushed."""
    bare, clone = folder / "bare.git", folder / "clone"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(folder, "clone", "--quiet", str(bare), str(clone))
    git(clone, "checkout", "--quiet", "-B", "main")
    commit(clone, README_md="hello")
    git(clone, "push", "--quiet", "origin", "main")
    return bare, clone
