"""Copies of calls for releases that are tried in the dark: asked after the client has its answer, and only recorded."""

from __future__ import annotations

import asyncio
import logging

import orjson

from services.gateway.call import Call
from services.gateway.metering import Metering
from services.gateway.sse_events import loggable_body, usage_of
from services.gateway.upstream import UpstreamPool
from services.rollout.routing import Rollout, Share
from services.store.api_error import ApiError
from services.store.database import DONE, FAILED

MOST = 32  # copies under way at once; more are not sent


class ShadowTraffic:
    """Never in anybody's way: what there is no room for is left out."""

    def __init__(self, accounts: Metering, forward: UpstreamPool) -> None:
        self._accounts, self._forward = accounts, forward
        self._asking: set[asyncio.Task[None]] = set()

    def copy(self, call: Call, rollout: Rollout, path: str, body: bytes) -> None:
        for share in rollout.shadows:
            if len(self._asking) < MOST and not self._forward.lane(share.route).busy:
                task = asyncio.create_task(self._ask(call, share, path, body))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, original: Call, share: Share, path: str, body: bytes) -> None:
        """Ask one shadow, and enter it; whatever goes wrong concerns nobody but it."""
        try:
            await self._copy(original, share, path, body)
        except ApiError:
            pass  # it is entered as failed
        except Exception:
            logging.getLogger("driftline").exception("A copy for %s failed.", share.route.tag)

    async def _copy(self, original: Call, share: Share, path: str, body: bytes) -> None:
        call = Call(original.interface, original.key, share, original.entity, original.asked)
        if call.is_language:
            sent = orjson.loads(body) | {"model": share.route.tag, "stream": False}
            sent.pop("stream_options", None)
            body = orjson.dumps(sent)
        await self._accounts.begin_unpaid(call)
        try:
            reply = await self._forward.ask(call, path, body)
            if call.is_language and reply.status < 400:
                call.used(usage_of(reply.body))
            call.answered = loggable_body(call, reply.body)
        except BaseException as error:
            await self._accounts.end_badly(call, error)
            raise
        await self._accounts.end(call, DONE if reply.status < 400 else FAILED, reply.status)
