"""Servers with OpenAI's API that misbehave, over real sockets; each counts its requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tasks.language.upstream import Upstream


@dataclass(frozen=True)
class Reply:
    """A response; `pause` seconds pass before each of its pieces, and `broken` ends it before its declared end."""

    status: int = 200
    pieces: Sequence[bytes] = ()
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    broken: bool = False


Script = Callable[[dict[str, Any], int], Reply]  # from the request's body, and the number of those before


class Misbehaving(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script, models: Any = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.script, self.models = script, models
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def upstream(self) -> Upstream:
        return Upstream(source=f"openai+{self.address}#m", address=self.address, model="m")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def do_GET(self) -> None:
        self._send(Reply(404, [b"{}"]) if self.server.models is None else whole({"data": self.server.models}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self._send(self.server.script(request, len(self.server.requests) - 1))

    def _send(self, reply: Reply) -> None:
        self.close_connection = True
        self.send_response(reply.status)
        headers = {"content-length": str(sum(map(len, reply.pieces)) + reply.broken)} | reply.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in reply.pieces:
                time.sleep(reply.pause)
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            pass  # the client has had enough

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def misbehaving(script: Script | Reply, models: Any = None, port: int = 0) -> Iterator[Misbehaving]:
    """A server that answers by a script, or always the same."""
    server = Misbehaving((lambda *_: script) if isinstance(script, Reply) else script, models, port)
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def whole(body: Any, status: int = 200, **headers: str) -> Reply:
    """A response of JSON, or of other bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, [content], headers)


def completion(text: str | None = "yes", **more: Any) -> dict[str, Any]:
    """A chat completion in OpenAI's form."""
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    named = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**named, "choices": [choice], "usage": usage, **more}


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def events(*texts: str, done: bool = True, finish: str | None = "stop") -> Reply:
    """A stream of these texts."""
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    choices += [{"index": 0, "delta": {}, "finish_reason": finish}] if finish else []
    lines = [b"data: " + json.dumps({**about, "choices": [choice]}).encode() + b"\n\n" for choice in choices]
    return Reply(200, [*lines, *([b"data: [DONE]\n\n"] if done else [])], {"content-type": "text/event-stream"})
