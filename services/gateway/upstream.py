"""Forwards calls to a release's processes, with a bounded queue, timeouts and retries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import aiohttp

from services.gateway.call import Call
from services.gateway.client_sessions import ClientSessions
from services.gateway.metrics import GatewayMetrics
from services.gateway.socket_client import ConnectionLost, SocketClient, Unreachable
from services.rollout.routing import TABULAR, Route, Routes
from services.serving.retrieval import RETRIEVAL_HEADER, parse_retrieval
from services.store.api_error import ApiError
from tasks.core.sockets import unix_socket_path
from tasks.knowledge.labels import LABELS_HEADER, format_labels

MAX_CONCURRENT, MAX_QUEUED = 64, 256  # calls of one release
# calls at one process of a tabular release: it computes them one after the other and accepts one connection in between,
# so that of 64 at once half would wait until the others were all answered
MAX_CONCURRENT_PER_PROCESS = 8
RETRIES = 2  # of a call whose process dies
RESTART_SECONDS = 30.0  # in which a killed process must be back
# seconds for a whole call, by interface
TIMEOUTS = {"predict": 60.0, "chat": 300.0, "embeddings": 120.0, "search": 60.0}
PROBE_SECONDS = 5.0  # for a readiness probe
LOST_SECONDS_HEADER = "x-driftline-lost-seconds"  # spent on an engine that then died: they are not charged

T = TypeVar("T")


@dataclass(frozen=True)
class UpstreamResponse:
    """A whole response of a release."""

    status: int
    body: bytes


OpenStream: TypeAlias = tuple[bytes, AsyncIterator[bytes]]  # a stream's first bytes, and the rest


class ConcurrencyLimiter:
    """Limits the concurrent calls of one release; further calls queue up, and beyond the queue they are refused."""

    def __init__(self, limit: int) -> None:
        self._places, self._limit, self._waiting = asyncio.Semaphore(limit), limit, 0

    @property
    def is_busy(self) -> bool:
        """Whether there is no room for shadow calls."""
        return self._places.locked() and self._limit + self._waiting >= MAX_CONCURRENT

    async def acquire(self, case: str, metrics: GatewayMetrics) -> None:
        if self._places.locked():
            if self._waiting >= MAX_CONCURRENT + MAX_QUEUED - self._limit:
                raise ApiError(503, "Too many calls are waiting for this model.", code="overloaded", wait=1)
            self._waiting += 1
            metrics.queued.labels(case).inc()
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
                metrics.queued.labels(case).dec()
        else:
            await self._places.acquire()
        metrics.in_flight.labels(case).inc()

    def release(self, case: str, metrics: GatewayMetrics) -> None:
        self._places.release()
        metrics.in_flight.labels(case).dec()


class UpstreamPool:
    """Connections and limiters of all releases. Use within a running loop, and close."""

    def __init__(self, routes: Callable[[], Routes], metrics: GatewayMetrics) -> None:
        self.sessions, self._sockets = ClientSessions(), SocketClient()
        self._routes, self._metrics = routes, metrics
        self._limiters: dict[str, ConcurrencyLimiter] = {}
        self._turn = 0

    @property
    def routes(self) -> Routes:
        """The routes now."""
        return self._routes()

    async def close(self) -> None:
        await self.sessions.close()
        self._sockets.close()

    def limiter(self, route: Route) -> ConcurrencyLimiter:
        if route.digest not in self._limiters:
            processes = max(1, len(route.addresses))
            limit = MAX_CONCURRENT_PER_PROCESS * processes if route.kind == TABULAR else MAX_CONCURRENT
            self._limiters[route.digest] = ConcurrencyLimiter(min(MAX_CONCURRENT, limit))
        return self._limiters[route.digest]

    @contextlib.asynccontextmanager
    async def _slot(self, call: Call) -> AsyncIterator[None]:
        """Hold a slot at the release; the time in it counts as engine seconds.

        Raises: ApiError when the queue is full.
        """
        case, limiter = call.share.route.case, self.limiter(call.share.route)
        await limiter.acquire(case, self._metrics)
        call.dispatched_at = time.perf_counter()
        try:
            yield
        finally:
            call.engine_seconds = max(0.0, time.perf_counter() - call.dispatched_at - call.lost_seconds)
            limiter.release(case, self._metrics)

    async def send(self, call: Call, path: str, body: bytes) -> UpstreamResponse:
        """Forward a call and return the whole response.

        Raises: ApiError.
        """

        async def attempt(address: str) -> UpstreamResponse:
            if socket := unix_socket_path(address):
                whole = await self._sockets.post(socket, path, _headers(call), body, TIMEOUTS[call.interface])
                _record_headers(call, whole.headers)
                return UpstreamResponse(whole.status, whole.body)
            http, base = self.sessions.session_for(address)
            async with http.post(base + path, data=body, headers=_headers(call), timeout=_timeout(call)) as response:
                _record_headers(call, response.headers)
                return UpstreamResponse(response.status, await response.read())

        async with self._slot(call):
            return await self._with_retries(call, attempt)

    @contextlib.asynccontextmanager
    async def stream(self, call: Call, path: str, body: bytes) -> AsyncIterator[OpenStream | UpstreamResponse]:
        """Open a stream: its first bytes and the rest; or the whole response that came instead.

        Raises: ApiError.
        """

        async def attempt(address: str) -> tuple[bytes, aiohttp.ClientResponse] | UpstreamResponse:
            http, base = self.sessions.session_for(address)
            response = await http.post(base + path, data=body, headers=_headers(call), timeout=_timeout(call))
            _record_headers(call, response.headers)
            try:
                if response.status != 200:
                    return UpstreamResponse(response.status, await response.read())
                if first := await response.content.readany():
                    return first, response
                raise aiohttp.ServerDisconnectedError("It ended before its first byte.")
            except BaseException:
                response.close()
                raise

        async with self._slot(call):
            opened = await self._with_retries(call, attempt)
            if isinstance(opened, UpstreamResponse):
                yield opened
                return
            first, response = opened
            try:
                yield first, response.content.iter_any()
            finally:
                response.close()  # stops the engine if the client has disconnected

    async def is_ready(self, address: str) -> bool:
        """Whether a release's process is ready."""
        try:
            http, base = self.sessions.session_for(address)
            async with http.get(base + "/readyz", timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _with_retries(self, call: Call, attempt: Callable[[str], Awaitable[T]]) -> T:
        """Run an attempt, with retries.

        A process that can't be reached has done nothing: the call goes to another one, or to the same once it is back.
        A process that dies during a call may have done something: RETRIES more attempts. Two, since a stopping process
        may still accept a second connection without reading it.
        """
        started, deaths = time.perf_counter(), 0
        while True:
            route = self._routes().by_digest.get(call.share.route.digest, call.share.route)
            self._turn += 1
            for turn in range(len(route.addresses)):
                address = route.addresses[(self._turn + turn) % len(route.addresses)]
                call.lost_seconds = time.perf_counter() - started  # before this attempt
                try:
                    return await attempt(address)
                except TimeoutError as error:
                    raise ApiError(504, f"{route.tag} did not answer in time.", code="timeout") from error
                except (aiohttp.ClientConnectorError, Unreachable):
                    continue
                except (aiohttp.ClientError, ConnectionLost) as error:
                    deaths += 1
                    if deaths > RETRIES:
                        message = f"{route.tag} died during this call, {deaths} times."
                        raise ApiError(502, message, code="model_died") from error
                    call.retries += 1
            if not route.addresses or time.perf_counter() > started + RESTART_SECONDS:
                raise ApiError(503, f"No process of {route.tag} can be reached.", code="model_unavailable", wait=2)
            await asyncio.sleep(0.1)


def _timeout(call: Call) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=TIMEOUTS[call.interface], sock_connect=5)


def _headers(call: Call) -> dict[str, str]:
    """The only headers that a release gets: none of the client's, so that no client chooses its labels."""
    return {LABELS_HEADER: format_labels(call.key.labels)} if call.is_language else {}


def _record_headers(call: Call, headers: Mapping[str, str]) -> None:
    call.lost_seconds += float(headers.get(LOST_SECONDS_HEADER, 0))
    call.retrieval = parse_retrieval(headers.get(RETRIEVAL_HEADER))
    if call.retrieval:
        call.guard.merge((("passages", rule, outcome), n) for rule, outcome, n in call.retrieval.guarded)
