"""The way to a release's processes: a bounded queue, time limits, and another try where nothing was lost yet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import aiohttp

from services.gateway.call import Call
from services.gateway.client_sessions import ClientSessions
from services.gateway.metrics import GatewayMetrics
from services.rollout.routing import TABULAR, Route, Routes
from services.store.api_error import ApiError

WIDTH, QUEUE = 64, 256  # calls at a release at once, and waiting for it
# calls at one process of a table's release at once: it computes them one after the other, and takes in but one new
# connection meanwhile, so that of 64 at once half would wait until the others had all their answers
TABLE_WIDTH = 8
RETRIES = 2  # of a call over which processes die
RESTART = 30.0  # seconds that calls wait for a process that was killed to be there again
PATIENCE = {"predict": 60.0, "chat": 300.0, "embeddings": 120.0}  # seconds for a whole call
PROBE = 5.0  # seconds in which a process says whether it is ready
LOST = "x-driftline-lost-seconds"  # of a call, spent on an engine that then died: nobody pays for them

T = TypeVar("T")


@dataclass(frozen=True)
class UpstreamResponse:
    """A whole answer of a release."""

    status: int
    body: bytes


Opened: TypeAlias = tuple[bytes, AsyncIterator[bytes]]  # a stream's first bytes, and what follows


class ConcurrencyLimiter:
    """So many calls at once to one release; then some wait their turn, and the others are told to come again."""

    def __init__(self, width: int) -> None:
        self._places, self._width, self._waiting = asyncio.Semaphore(width), width, 0

    @property
    def busy(self) -> bool:
        """Whether there is no room for calls that nobody waits for."""
        return self._places.locked() and self._width + self._waiting >= WIDTH

    async def enter(self, case: str, figures: GatewayMetrics) -> None:
        if self._places.locked():
            if self._waiting >= WIDTH + QUEUE - self._width:
                raise ApiError(503, "Too many calls wait for this model already.", code="overloaded", wait=1)
            self._waiting += 1
            figures.waiting.labels(case).inc()
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
                figures.waiting.labels(case).dec()
        else:
            await self._places.acquire()
        figures.working.labels(case).inc()

    def leave(self, case: str, figures: GatewayMetrics) -> None:
        self._places.release()
        figures.working.labels(case).dec()


class UpstreamPool:
    """A pool of connections to all releases. Use within a running loop, and close."""

    def __init__(self, routes: Callable[[], Routes], figures: GatewayMetrics) -> None:
        self.sessions = ClientSessions()
        self._routes, self._figures = routes, figures
        self._lanes: dict[str, ConcurrencyLimiter] = {}
        self._turn = 0

    async def close(self) -> None:
        await self.sessions.close()

    def lane(self, route: Route) -> ConcurrencyLimiter:
        if route.digest not in self._lanes:
            width = min(WIDTH, TABLE_WIDTH * max(1, len(route.addresses))) if route.kind == TABULAR else WIDTH
            self._lanes[route.digest] = ConcurrencyLimiter(width)
        return self._lanes[route.digest]

    @contextlib.asynccontextmanager
    async def _place(self, call: Call) -> AsyncIterator[None]:
        """A place at the release; what is spent in it counts as engine seconds.

        Raises: Refusal when too many wait already.
        """
        case, lane = call.share.route.case, self.lane(call.share.route)
        await lane.enter(case, self._figures)
        call.placed_at = time.perf_counter()
        try:
            yield
        finally:
            call.engine_seconds = max(0.0, time.perf_counter() - call.placed_at - call.lost_seconds)
            lane.leave(case, self._figures)

    async def ask(self, call: Call, path: str, body: bytes) -> UpstreamResponse:
        """A whole answer.

        Raises: Refusal.
        """

        async def attempt(address: str) -> UpstreamResponse:
            http, base = self.sessions.to(address)
            async with http.post(base + path, data=body, timeout=_patience(call)) as response:
                call.lost_seconds += float(response.headers.get(LOST, 0))
                return UpstreamResponse(response.status, await response.read())

        async with self._place(call):
            return await self._trying(call, attempt)

    @contextlib.asynccontextmanager
    async def stream(self, call: Call, path: str, body: bytes) -> AsyncIterator[Opened | UpstreamResponse]:
        """A stream's first bytes and what follows; or the whole answer that came instead.

        Raises: Refusal.
        """

        async def attempt(address: str) -> tuple[bytes, aiohttp.ClientResponse] | UpstreamResponse:
            http, base = self.sessions.to(address)
            response = await http.post(base + path, data=body, timeout=_patience(call))
            call.lost_seconds += float(response.headers.get(LOST, 0))
            try:
                if response.status != 200:
                    return UpstreamResponse(response.status, await response.read())
                if first := await response.content.readany():
                    return first, response
                raise aiohttp.ServerDisconnectedError("It ended before its first byte.")
            except BaseException:
                response.close()
                raise

        async with self._place(call):
            opened = await self._trying(call, attempt)
            if isinstance(opened, UpstreamResponse):
                yield opened
                return
            first, response = opened
            try:
                yield first, response.content.iter_any()
            finally:
                response.close()  # ends the engine's work, where the client was the one who left

    async def is_ready(self, address: str) -> bool:
        """Whether a release's process says that it can answer."""
        try:
            http, base = self.sessions.to(address)
            async with http.get(base + "/readyz", timeout=aiohttp.ClientTimeout(total=PROBE)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _trying(self, call: Call, attempt: Callable[[str], Awaitable[T]]) -> T:
        """A process that can't be reached has done nothing: another one, or itself once it is back, may be asked.
        One that dies over a call may have done something: the call is tried twice more. Twice, since a process that is
        told to end may still take a second connection, and let it go unread.
        """
        begun, deaths = time.perf_counter(), 0
        while True:
            route = self._routes().by_digest.get(call.share.route.digest, call.share.route)
            self._turn += 1
            for turn in range(len(route.addresses)):
                address = route.addresses[(self._turn + turn) % len(route.addresses)]
                call.lost_seconds = time.perf_counter() - begun  # before this attempt
                try:
                    return await attempt(address)
                except TimeoutError as error:
                    raise ApiError(504, f"{route.tag} did not answer in time.", code="timeout") from error
                except aiohttp.ClientConnectorError:
                    continue
                except aiohttp.ClientError as error:
                    deaths += 1
                    if deaths > RETRIES:
                        raise ApiError(
                            502, f"{route.tag} ended over this call, {deaths} times.", code="model_died"
                        ) from error
                    call.retries += 1
            if not route.addresses or time.perf_counter() > begun + RESTART:
                raise ApiError(503, f"No process of {route.tag} can be reached.", code="model_unavailable", wait=2)
            await asyncio.sleep(0.1)


def _patience(call: Call) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=PATIENCE[call.interface], sock_connect=5)
