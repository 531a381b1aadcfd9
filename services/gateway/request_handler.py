"""A call from the moment its sender is known to its last byte: assigned, entered, asked, settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import orjson
from starlette.responses import Response

from services.gateway.budget_meter import BudgetExhausted
from services.gateway.cache import Cache, CachedResponse
from services.gateway.call import READ, Call
from services.gateway.guardrails import Guardrails
from services.gateway.metering import Metering, estimate_tokens, outcome_of
from services.gateway.metrics import GatewayMetrics
from services.gateway.shadow import ShadowTraffic
from services.gateway.sse_events import (
    DONE_EVENT,
    classes_of,
    count_usage,
    error_event,
    loggable_body,
    split_events,
    usage_of,
)
from services.gateway.streaming import EventStreamResponse
from services.gateway.upstream import UpstreamPool, UpstreamResponse
from services.rollout.routing import Rollout
from services.store.api_error import ApiError, release_error_body
from services.store.database import ABORTED, CACHED, DONE, FAILED, REFUSED
from services.store.keys import Key

DEEPEST = 250  # levels of a request's JSON; orjson writes 254
PATHS = {"predict": "/predict", "chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}


class RequestHandler:
    """Everything that the calls of one gateway process share."""

    def __init__(self, accounts: Metering, forward: UpstreamPool, policy: Guardrails, figures: GatewayMetrics) -> None:
        self._accounts, self._forward, self._policy, self._figures = accounts, forward, policy, figures
        self._cache, self._shadows = Cache(), ShadowTraffic(accounts, forward)

    async def predict(self, key: Key, rollout: Rollout, body: bytes, entity: str) -> Response:
        """Rows to predictions; the release checks the rows, and says what is wrong with them."""
        if not entity and rollout.others:
            entity = entity_of(body, rollout.champion.route.entities)
        call = Call("predict", key, rollout.assign(entity), entity, body[:READ])
        body = await self._begin(call, body, {})
        response = await self._whole(call, rollout, body, None)
        told = bytes(response.body)
        if told.startswith(b'{"'):  # one more field, without reading what may be 10,000 rows
            told = b'{"request_id":"' + call.id.encode() + b'",' + told[1:]
            return Response(told, response.status_code, headers_of(call), "application/json")
        return response

    async def complete(
        self, interface: str, key: Key, rollout: Rollout, asked: Mapping[str, Any], entity: str
    ) -> Response:
        """OpenAI's body to OpenAI's answer.

        Raises: Refusal.
        """
        if not isinstance(asked.get("stream"), bool | None):  # a release may take "yes" for true
            raise ApiError(400, "stream is true or false.", param="stream")
        user = asked.get("user")
        entity = str(user) if user and isinstance(user, str | int | float) else entity
        share = rollout.assign(entity or key.id)
        call = Call(interface, key, share, entity)
        sent, streams = {**asked, "model": share.route.tag}, interface == "chat" and asked.get("stream") is True
        if streams:
            sent["stream_options"] = {"include_usage": True}  # for the ledger, whether or not the client wants it
        try:
            call.asked, body = orjson.dumps(asked)[:READ], orjson.dumps(sent)
        except orjson.JSONEncodeError:
            raise await self._too_deep(call) from None
        body = await self._begin(call, body, asked)
        name = self._cache.key(call, asked)
        if name and (kept := self._look_up(call, name)):
            return await self._from_cache(call, kept)
        if not streams:
            return await self._whole(call, rollout, body, name)
        events = self._events(call, rollout, body, asked, name)
        first = await anext(events)  # what fails before the first byte gets a status of its own
        return first if isinstance(first, Response) else EventStreamResponse(first, events, headers_of(call))

    async def refuse_too_deep(self, interface: str, key: Key, rollout: Rollout) -> ApiError:
        """Enter a request whose JSON is nested too deep to be read, and give what its client is told."""
        return await self._too_deep(Call(interface, key, rollout.champion))

    async def _too_deep(self, call: Call) -> ApiError:
        await self._accounts.refuse(call, 400)
        return too_deep()

    async def _begin(self, call: Call, body: bytes, asked: Mapping[str, Any]) -> bytes:
        """Enter a call, and give what the policy lets through of it.

        Raises: Refusal.
        """
        await self._accounts.begin(call, len(body), asked)
        try:
            return await self._policy.before(call, body)
        except BaseException as error:
            await self._accounts.end_badly(call, error)
            raise

    async def _whole(self, call: Call, rollout: Rollout, body: bytes, name: str | None) -> Response:
        try:
            reply = await self._ask(call, body)
            if reply.status >= 500:
                raise broken(call, reply)
            said = reply.body
            if reply.status >= 400:
                said = release_error_body(call.share.route.tag, reply.status, said)
            elif call.is_language:
                call.used(usage_of(said))
            answered = await self._policy.after(call, said)
            if not call.is_language:
                call.classes = classes_of(answered)
        except BaseException as error:
            await self._accounts.end_badly(call, error)
            raise
        call.answered = loggable_body(call, answered)
        await self._accounts.end(call, DONE if reply.status < 400 else REFUSED, reply.status)
        if reply.status < 400:
            self._after(call, rollout, body, answered, name)
        return Response(answered, reply.status, headers_of(call), "application/json")

    async def _ask(self, call: Call, body: bytes) -> UpstreamResponse:
        """The release's answer; a call that a budget pays is stopped when this has no more. Raises: Refusal."""
        if not call.key.budgets:
            return await self._forward.ask(call, PATHS[call.interface], body)
        with self._accounts.meter.watch(call, estimate_tokens(len(body))) as watched:
            try:
                async with asyncio.timeout(None) as watched.limit:
                    return await self._forward.ask(call, PATHS[call.interface], body)
            except TimeoutError:
                raise BudgetExhausted() from None

    async def _events(
        self, call: Call, rollout: Rollout, body: bytes, asked: Mapping[str, Any], name: str | None
    ) -> AsyncGenerator[Any]:
        """A stream's events; or, first and only, the response that came instead."""
        options = asked.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        said, sent, state, status = bytearray(), False, ABORTED, 499
        last: bytes | Response = error_event(ApiError(502, "The model ended within its answer.").body)
        try:
            with self._accounts.meter.watch(call, estimate_tokens(len(body))) as watched:
                async with self._forward.stream(call, PATHS["chat"], body) as opened:
                    if isinstance(opened, UpstreamResponse):
                        last, state, status = refused(call, opened), REFUSED, opened.status
                    else:
                        self._figures.began(call, time.perf_counter() - call.began)
                        async with aclosing(split_events(*opened)) as source:
                            async for events in self._policy.during(call, source):
                                if watched.stopped:
                                    raise BudgetExhausted
                                said += (shown := count_usage(call, events, wants_usage))
                                if DONE_EVENT in shown:
                                    state, status, last = DONE, 200, shown
                                    break
                                sent = True
                                yield shown
                            else:
                                state, status = FAILED, 502
        except (ApiError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            refusal = error if isinstance(error, ApiError) else ApiError(502, "The model ended within its answer.")
            state, status = outcome_of(refusal)
            if not sent:
                raise refusal from error
            last = error_event(refusal.body)
        except Exception:
            state, status = FAILED, 500
            raise
        finally:
            if said and not call.tokens_in:  # it had no time to say
                call.tokens_in = estimate_tokens(len(body))
            call.answered = loggable_body(call, bytes(said))
            unsettled = await self._accounts.try_to_end(call, state, status)
        if unsettled and not sent:
            raise unsettled
        if unsettled:
            last = error_event(unsettled.body)
        elif state == DONE:
            self._after(call, rollout, body, bytes(said), name)
        yield last  # settled first: who has read the end finds it in the ledger

    def _after(self, call: Call, rollout: Rollout, body: bytes, answered: bytes, name: str | None) -> None:
        if name:
            self._cache.keep(name, answered, call)
        self._shadows.copy(call, rollout, PATHS[call.interface], body)

    def _look_up(self, call: Call, name: str) -> CachedResponse | None:
        kept = self._cache.find(name)
        self._figures.cache.labels(call.share.route.case, "hit" if kept else "miss").inc()
        return kept

    async def _from_cache(self, call: Call, kept: CachedResponse) -> Response:
        call.tokens_in, call.tokens_cached, call.tokens_out = kept.tokens_in, kept.tokens_in, kept.tokens_out
        call.saved, call.answered = kept.price, loggable_body(call, kept.body)
        await self._accounts.end(call, CACHED, 200)
        said = {"x-driftline-cache": "hit", "age": str(kept.age), "x-driftline-saved": f"{kept.price / 1e9:.9f}"}
        kind = EventStreamResponse.media_type if kept.body.startswith(b"data: ") else "application/json"
        return Response(kept.body, 200, headers_of(call) | said, kind)


def too_deep() -> ApiError:
    return ApiError(400, f"The JSON is nested too deep: at most {DEEPEST} levels are allowed.", code="too_deep")


def entity_of(body: bytes, entities: tuple[str, ...]) -> str:
    """Whom a table's request is about: the first row's join keys, else its example_id, else the request itself."""
    try:
        row = orjson.loads(body)["rows"][0]
        values = [row[name] for name in entities if name in row] or [row["example_id"]]
        return orjson.dumps(values).decode()
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return body[:READ].decode(errors="replace")


def headers_of(call: Call) -> dict[str, str]:
    arm = {"x-driftline-arm": call.share.arm} if call.share.arm else {}
    return {"x-request-id": call.id, "x-driftline-release": call.share.route.digest, **arm}


def refused(call: Call, reply: UpstreamResponse) -> Response:
    """The response for a release's whole answer that came instead of a stream. Raises: Refusal when it failed."""
    if reply.status >= 500:
        raise broken(call, reply)
    body = release_error_body(call.share.route.tag, reply.status, reply.body)
    return Response(body, reply.status, headers_of(call), "application/json")


def broken(call: Call, reply: UpstreamResponse) -> ApiError:
    tag = call.share.route.tag
    if reply.status == 503:
        return ApiError(503, f"{tag} can't answer now.", code="model_unavailable", wait=2)
    if reply.status == 504:
        return ApiError(504, f"{tag} did not answer in time.", code="timeout")
    return ApiError(502, f"{tag} failed with {reply.status}.", code="model_failed")
