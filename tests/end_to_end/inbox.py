"""A webhook and a mail server that collect alerts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any


class Inbox:
    """The alerts that arrived at a webhook, and by mail."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.mails: list[str] = []


@contextmanager
def listening() -> Iterator[tuple[Inbox, str]]:
    """Listen on loopback; yields the inbox, and the channels that lead to it."""
    inbox = Inbox()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.posts.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Mail(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                word = line[:4].upper()
                self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 fine\r\n"))
                if word == b"DATA":
                    lines = iter(self.rfile.readline, b".\r\n")
                    inbox.mails.append(b"".join(lines).decode())
                    self.wfile.write(b"250 taken\r\n")
                if word == b"QUIT":
                    return

    hook, mail = ThreadingHTTPServer(("127.0.0.1", 0), Hook), ThreadingTCPServer(("127.0.0.1", 0), Mail)
    for server in (hook, mail):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    web, post = (f"127.0.0.1:{server.server_address[1]}" for server in (hook, mail))
    address = "from=driftline@example.org&to=team@example.org&mode=insecure"
    try:
        yield inbox, f"http://{web}/hook slack+http://{web}/slack mailto://{post}?{address}"
    finally:
        for server in (hook, mail):
            server.shutdown()
            server.server_close()
