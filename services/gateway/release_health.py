"""Which champions can't answer just now, by what their own processes say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.rollout.routing import Route, Routes
from tasks.core.loops import TaskLoop

EVERY = 2.0  # seconds between two looks


class ReleaseHealth:
    """Asks each champion's processes whether they are ready. A case without a process is none of its matters.

    ask: whether the process of an address is ready.
    """

    def __init__(self, routes: Callable[[], Routes], ask: Callable[[str], Awaitable[bool]]) -> None:
        self.unready: dict[str, str] = {}  # case: the tag of its champion, none of whose processes can answer
        self.loop = TaskLoop("release health", self._look, interval=EVERY)
        self._routes, self._ask = routes, ask
        self._champions = 0

    @property
    def all_unready(self) -> bool:
        """No champion that has a process can answer."""
        return 0 < self._champions == len(self.unready)

    async def _look(self) -> None:
        champions = [rollout.champion.route for rollout in self._routes().rollouts.values()]
        served = [route for route in champions if route.addresses]
        answers = await asyncio.gather(*map(self._ready, served))
        self._champions = len(served)
        self.unready = {route.case: route.tag for route, ready in zip(served, answers, strict=True) if not ready}

    async def _ready(self, route: Route) -> bool:
        return any(await asyncio.gather(*map(self._ask, route.addresses)))
