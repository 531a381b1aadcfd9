"""HTTP connections with a limit on every part, enforced before memory is used."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter
from functools import cached_property
from typing import Any, ClassVar

import httptools
import orjson

from services.gateway.compat import HttpProtocol, RequestResponseCycle, status_line
from services.gateway.connection_table import MAX_CONNECTIONS, OWN_FILES, ConnectionTable
from services.store.api_error import ApiError
from tasks.core.peer import is_own_loopback

MAX_TARGET = 16 * 1024  # bytes of a request line's target
MAX_HEADERS = 32 * 1024  # bytes of all headers, and so of one
MAX_COUNT = 100  # headers, trailers among them
MAX_PIPELINED = 16  # requests that wait for an earlier one of their connection
HEAD_SECONDS = 10.0  # from a connection's start, or a request's first byte, until its headers are complete
STALL_SECONDS = 30.0  # in which a client must read MIN_TAKEN bytes of its response
MIN_TAKEN = 32 * 1024
LINGER_SECONDS = 2.0  # for a client to read an error and to finish a body that is ignored
STEP = 16 * 1024  # bytes of a head that are parsed at once
FRAMING = 8  # bytes of a body for each byte around them: chunks, in bodies beyond some kB, have 40 bytes or more
MAX_UNREAD = 16 * 1024 * 1024  # bytes of a body that arrive after the response
REPORT_SECONDS = 60.0  # between two log lines about connections that were closed


class LimitedHttpProtocol(HttpProtocol):
    """uvicorn's HTTP protocol, which closes a connection when a part of a request exceeds its limit."""

    table = ConnectionTable(MAX_CONNECTIONS)  # of this process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.in_head, self.is_lingering = True, False
        self.body_bytes = self.overhead_bytes = 0  # of the current message; overhead: all bytes outside its body
        self.refusal: ApiError | None = None
        self.running: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        if not self.table.add(self, self.client[0] if self.client else ""):
            self._refuse(ApiError(503, "Too many connections are open.", code="overloaded", wait=1))
            self.transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.running is not None and not self.running.response_complete:
            self.running.disconnected = True
            self.running.message_event.set()
        self.table.remove(self)
        for timer in (self._head_timer, self._stall_timer, self._linger_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        # without these cycles it is freed now, not by a collection after thousands of connections of 8 kB each
        self.scope = self.cycle = self.running = None  # type: ignore[assignment]
        self.pipeline.clear()

    @cached_property
    def is_owner(self) -> bool:
        """Whether the other end is a socket of this process's user on this machine."""
        server = self.server
        return is_own_loopback(self.client, (server[0], server[1]) if server and server[1] is not None else None)

    def data_received(self, data: bytes) -> None:
        if self.is_lingering:
            return
        self.cancel_keep_alive()
        try:
            self._parse(data)
        except httptools.HttpParserUpgrade:  # the request for another protocol is ignored
            self.is_lingering, self.cycle.keep_alive = True, False
        except httptools.HttpParserError:
            self._refuse(self.refusal or ApiError(400, "The request is not HTTP/1.1.", code="invalid_request"))
        if (
            self.overhead_bytes
            and self.in_head
            and self._head_timer is None
            and not (self.is_lingering or self._is_busy)
        ):
            self.table.await_head(self)
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_url(self, url: bytes) -> None:
        if len(self.url) + len(url) > MAX_TARGET:
            self._stop(ApiError(414, f"The limit for a request target is {MAX_TARGET:,} bytes.", code="too_long"))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_COUNT:
            self._stop(ApiError(431, f"The limit is {MAX_COUNT} headers.", code="too_many_headers"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADERS:
            self._stop(_headers_too_long())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(ApiError(400, f"The limit is {MAX_PIPELINED} pipelined requests.", code="too_many_requests"))
        self.in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self.table.mark_busy(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_head = True
        self.body_bytes = self.overhead_bytes = 0
        super().on_message_complete()
        if self._linger_timer is not None:  # the body that is not read has ended
            self._linger_timer.cancel()
            self._linger_timer = None
            self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.pipeline or self._is_busy:
            return
        if self.in_head:
            self.table.mark_idle(self)
        else:
            self.cancel_keep_alive()
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait for a client that reads nothing
            self.timeout_keep_alive_task = None
            self._rest()
            if self._stall_timer is None:
                self._watch_reader()
        else:
            super().timeout_keep_alive_handler()

    @property
    def _is_busy(self) -> bool:
        """Whether a request is running."""
        return self.running is not None and not self.running.response_complete

    def start_request(self, cycle: RequestResponseCycle) -> None:
        self.running = cycle

    def _abort(self) -> None:
        """Close at once, and mark the running request as disconnected before it writes."""
        if self.running is not None:
            self.running.disconnected = True
        self.transport.abort()

    def drop(self) -> None:
        """Close at once, to make room for another connection."""
        _report("made_room", self.client)
        self._abort()

    def _parse(self, data: bytes) -> None:
        """Parse a head in steps, so that its limits hold, and the rest at once."""
        start = 0
        while start < len(data) and not self.transport.is_closing():
            piece = data[start : start + STEP] if self.in_head and len(data) > STEP else data[start:]
            start += len(piece)
            body, self.overhead_bytes = self.body_bytes, self.overhead_bytes + len(piece)
            self.parser.feed_data(piece)
            self.overhead_bytes -= max(0, self.body_bytes - body)
            if self.overhead_bytes > MAX_TARGET + MAX_HEADERS + self.body_bytes // FRAMING:
                self.refusal = _headers_too_long()
                raise httptools.HttpParserError("too long")
            if self._linger_timer is not None and self.body_bytes > MAX_UNREAD:
                self._abort()

    def _stop(self, refusal: ApiError) -> None:
        """Stop parsing, within a callback of the parser."""
        self.refusal = refusal
        raise ValueError(refusal.message)

    def _refuse(self, refusal: ApiError) -> None:
        """Send the error, unless a response is running, and close after the client had time to read it."""
        if self.transport.is_closing() or self.is_lingering:
            return
        _report(refusal.code or str(refusal.status), self.client)
        self.is_lingering = True
        if self._is_busy:
            self._abort()
            return
        self.table.mark_idle(self)
        body = orjson.dumps(refusal.body)
        headers = {**refusal.headers, "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | {"connection": "close"}).items())
        self.transport.write(status_line(refusal.status) + lines.encode() + b"\r\n" + body)
        self.transport.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._abort)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.overhead_bytes:
            self._refuse(ApiError(408, f"The headers did not arrive in {HEAD_SECONDS:.0f} s.", code="too_slow"))
        else:
            _report("silent", self.client)
            self._abort()

    def _rest(self) -> None:
        if not self.transport.is_closing() and self.timeout_keep_alive_task is None:
            keep = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = keep
            self.table.mark_idle(self)

    def _watch_reader(self, waiting: int | None = None) -> None:
        """Abort when the client has read too little since the last check."""
        remaining = self.transport.get_write_buffer_size()
        if waiting is not None and waiting - remaining < min(MIN_TAKEN, waiting):
            _report("slow_reader", self.client)
            self._abort()
            return
        timer = self.loop.call_later(STALL_SECONDS, self._watch_reader, remaining) if remaining else None
        self._stall_timer = timer


def allow_connections() -> None:
    """Raise the limit on open files, and limit the connections to what fits into it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = MAX_CONNECTIONS + OWN_FILES
    allowed = required if most == resource.RLIM_INFINITY else min(most, required)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    LimitedHttpProtocol.table.limit = max(OWN_FILES, allowed - OWN_FILES)


class _Reports:
    """Counts of closed connections, by reason, since the last log line."""

    counts: ClassVar[Counter[str]] = Counter()
    last = -REPORT_SECONDS


def _report(reason: str, client: Any) -> None:
    _Reports.counts[reason] += 1
    if time.monotonic() - _Reports.last >= REPORT_SECONDS:
        reasons = ", ".join(f"{count} {name}" for name, count in _Reports.counts.items())
        logging.getLogger("driftline").warning("Connections ended: %s; the last from %s", reasons, client)
        _Reports.counts.clear()
        _Reports.last = time.monotonic()


def _headers_too_long() -> ApiError:
    return ApiError(431, f"The limit for all headers is {MAX_HEADERS:,} bytes.", code="headers_too_long")
