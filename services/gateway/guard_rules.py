"""The rules of each release: from its folder, else from its process; no rules where they are declared is an error."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson

from services.gateway.client_sessions import ClientSessions
from services.rollout.routing import Route
from services.store.api_error import ApiError
from tasks.core.errors import DriftlineError
from tasks.core.files import atomic_path
from tasks.guard.engine import GuardEngine
from tasks.guard.files import open_guard
from tasks.guard.sealed_files import GUARD_PATH, guard_digest, guard_files

LOAD_SECONDS = 30.0  # for a release to send its rules


class GuardRules:
    """The engines of the releases that this process has served, by digest of their rules."""

    def __init__(self, state: Path, sessions: ClientSessions) -> None:
        self._state, self._sessions = state, sessions
        self._engines: dict[str, asyncio.Task[GuardEngine]] = {}

    async def engine(self, route: Route) -> GuardEngine | None:
        """The rules of a release; None where it declares none.

        Raises: ApiError while they can't be read: nothing passes unchecked.
        """
        if not route.guard:
            return None
        task = self._engines.get(route.digest)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._engines[route.digest] = asyncio.create_task(self._load(route))
        try:
            return await asyncio.shield(task)
        except (DriftlineError, OSError, ValueError, aiohttp.ClientError, TimeoutError) as error:
            logging.getLogger("driftline").error("The guardrails of %s can't be read: %s", route.tag, error)
            message = f"The guardrails of {route.tag} can't be read, so it answers nothing."
            raise ApiError(503, message, code="guardrails_unavailable", wait=5) from error

    async def _load(self, route: Route) -> GuardEngine:
        folder = self._state / "releases" / route.case / route.digest[:12]
        if not await asyncio.to_thread(_is_sealed, folder, route.guard):
            folder = self._state / "gateway" / "guard" / route.guard[:12]
            if not await asyncio.to_thread(_is_sealed, folder, route.guard):
                files = await self._fetch(route)
                await asyncio.to_thread(_write, folder, files)
        return await asyncio.to_thread(open_guard, folder)

    async def _fetch(self, route: Route) -> dict[str, bytes]:
        """The rules as the release's process sends them. Raises: ValueError when they are not the sealed ones."""
        if not route.addresses:
            raise ValueError(f"no process of {route.tag} can be reached")
        http, base = self._sessions.session_for(route.addresses[0])
        async with http.get(base + GUARD_PATH, timeout=aiohttp.ClientTimeout(LOAD_SECONDS)) as response:
            response.raise_for_status()
            files = {name: b64decode(text) for name, text in orjson.loads(await response.read()).items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        if guard_digest(digests) != route.guard or any(".." in Path(name).parts for name in files):
            raise ValueError(f"{route.tag} sent other rules than were sealed")
        return files


def _is_sealed(folder: Path, digest: str) -> bool:
    return guard_digest(guard_files(folder)) == digest


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.exists():
        return
    with atomic_path(folder) as temporary:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
