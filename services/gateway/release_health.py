"""The champions that can't answer now, by the readiness of their processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.rollout.routing import Route, Routes
from tasks.core.loops import TaskLoop

CHECK_SECONDS = 2.0  # seconds between checks


class ReleaseHealth:
    """Checks the readiness of each champion's processes; a case without processes is ignored.

    is_ready: whether the process at an address is ready.
    """

    def __init__(self, routes: Callable[[], Routes], is_ready: Callable[[str], Awaitable[bool]]) -> None:
        self.unready: dict[str, str] = {}  # by case, the tag of a champion without a ready process
        self.loop = TaskLoop("release health", self._check, interval=CHECK_SECONDS)
        self._routes, self._is_ready = routes, is_ready
        self._champions = 0

    @property
    def all_unready(self) -> bool:
        """Whether no champion that has processes is ready."""
        return 0 < self._champions == len(self.unready)

    async def _check(self) -> None:
        champions = [rollout.champion.route for rollout in self._routes().rollouts.values()]
        served = [route for route in champions if route.addresses]
        answers = await asyncio.gather(*map(self._ready, served))
        self._champions = len(served)
        self.unready = {route.case: route.tag for route, ready in zip(served, answers, strict=True) if not ready}

    async def _ready(self, route: Route) -> bool:
        return any(await asyncio.gather(*map(self._is_ready, route.addresses)))
