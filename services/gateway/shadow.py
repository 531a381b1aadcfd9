"""Shadow traffic: copies of calls, sent after the client was answered; their responses are only recorded."""

from __future__ import annotations

import asyncio
import logging

import orjson

from services.gateway.call import Call
from services.gateway.guardrails import Guardrails
from services.gateway.metering import Metering
from services.gateway.sse_events import loggable_body, usage_of
from services.gateway.upstream import UpstreamPool
from services.rollout.routing import Rollout, Share
from services.store.api_error import ApiError
from services.store.database import DONE, FAILED

MAX_COPIES = 32  # running at once; further copies are dropped


class ShadowTraffic:
    """Sends copies to shadow releases, if there is room for them."""

    def __init__(self, metering: Metering, upstream: UpstreamPool, guardrails: Guardrails) -> None:
        self._metering, self._upstream, self._guardrails = metering, upstream, guardrails
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, call: Call, rollout: Rollout, path: str, body: bytes) -> None:
        for share in rollout.shadows:
            if len(self._tasks) < MAX_COPIES and not self._upstream.limiter(share.route).is_busy:
                task = asyncio.create_task(self._send_copy(call, share, path, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _send_copy(self, original: Call, share: Share, path: str, body: bytes) -> None:
        """Send one copy and record it; its errors affect no other call."""
        try:
            await self._copy(original, share, path, body)
        except ApiError:
            pass  # it is recorded as failed
        except Exception:
            logging.getLogger("driftline").exception("A shadow call of %s failed.", share.route.tag)

    async def _copy(self, original: Call, share: Share, path: str, body: bytes) -> None:
        call = Call(original.interface, original.key, share, original.entity, original.request_body)
        if call.interface in ("chat", "embeddings"):
            request = orjson.loads(body) | {"model": share.route.tag, "stream": False}
            request.pop("stream_options", None)
            body = orjson.dumps(request)
        await self._metering.begin_unmetered(call)
        try:
            body = await self._guardrails.check_request(call, body)
            response = await self._upstream.send(call, path, body)
            content = response.body
            if call.is_language and response.status < 400:
                call.record_usage(usage_of(content))
                content = await self._guardrails.check_response(call, content)
            call.response_body = loggable_body(call, content)
        except BaseException as error:
            await self._metering.fail(call, error)
            raise
        await self._metering.end(call, DONE if response.status < 400 else FAILED, response.status)
