"""Handles authenticated calls: assigns a release, reserves, forwards, streams, settles, caches and shadows."""

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
from services.gateway.cache import CachedResponse, ResponseCache
from services.gateway.call import MAX_READ, Call
from services.gateway.guard_chat import GuardRefusal, refusal_completion, refusal_events
from services.gateway.guardrails import Guardrails
from services.gateway.metering import Metering, estimate_tokens, outcome_of
from services.gateway.metrics import GatewayMetrics
from services.gateway.shadow import ShadowTraffic
from services.gateway.sse_events import (
    DATA,
    DONE_EVENT,
    END,
    count_usage,
    error_event,
    loggable_body,
    predicted_classes,
    split_events,
    usage_of,
)
from services.gateway.streaming import EventStreamResponse
from services.gateway.upstream import UpstreamPool, UpstreamResponse
from services.rollout.routing import LANGUAGE, Rollout
from services.store.api_error import ApiError, release_error_body
from services.store.database import ABORTED, CACHED, DONE, FAILED, REFUSED
from services.store.keys import Key

MAX_DEPTH = 250  # levels of a request's JSON; orjson can serialise 254
UNANSWERED = frozenset({"model_unavailable", "model_died", "model_failed", "timeout"})  # another release may answer
PATHS = {"predict": "/predict", "chat": "/v1/chat/completions", "embeddings": "/v1/embeddings", "search": "/v1/search"}


class RequestHandler:
    """Handles the calls of one gateway process."""

    def __init__(
        self, metering: Metering, upstream: UpstreamPool, guardrails: Guardrails, metrics: GatewayMetrics
    ) -> None:
        self._metering, self._upstream, self._guardrails, self._metrics = metering, upstream, guardrails, metrics
        self._cache, self._shadows = ResponseCache(), ShadowTraffic(metering, upstream, guardrails)

    async def predict(self, key: Key, rollout: Rollout, body: bytes, entity: str) -> Response:
        """Return predictions for rows; the release validates them."""
        if not entity and rollout.others:
            entity = entity_of(body, rollout.champion.route.entities)
        call = Call("predict", key, rollout.assign(entity), entity, body[:MAX_READ])
        body = await self._admit(call, body, {})
        response = await self._respond_whole(call, rollout, body, None)
        content = bytes(response.body)
        if content.startswith(b'{"'):  # add a field without parsing up to 10,000 rows
            content = b'{"request_id":"' + call.id.encode() + b'",' + content[1:]
            return Response(content, response.status_code, response_headers(call), "application/json")
        return response

    async def complete(
        self, interface: str, key: Key, rollout: Rollout, request: Mapping[str, Any], entity: str
    ) -> Response:
        """Return the response to a chat, an embeddings or a search request.

        When a release can't answer, and nothing of an answer was sent, another release of the rollout is asked; each
        attempt has a usage record of its own. Raises: ApiError.
        """
        if not isinstance(request.get("stream"), bool | None):  # a release may accept "yes"
            raise ApiError(400, "stream must be true or false.", param="stream")
        user = request.get("user")
        entity = str(user) if user and isinstance(user, str | int | float) else entity
        call = Call(interface, key, rollout.assign(entity or key.id), entity)
        others = list(rollout.without(call.share))
        while True:
            try:
                return await self._complete(call, rollout, request)
            except ApiError as error:
                if error.code not in UNANSWERED or not others:
                    raise
                call = Call(interface, key, others.pop(0), entity, retries=call.retries + 1)

    async def _complete(self, call: Call, rollout: Rollout, request: Mapping[str, Any]) -> Response:
        """The response of one release. Raises: ApiError."""
        interface = call.interface
        call.wants_passages = request.get("include_passages") is True
        forwarded = dict(request) if interface == "search" else {**request, "model": call.share.route.tag}
        streams = interface == "chat" and request.get("stream") is True
        if streams:  # the usage is recorded, whether or not the client wants it
            forwarded["stream_options"] = {"include_usage": True}
        try:
            call.request_body, body = orjson.dumps(request)[:MAX_READ], orjson.dumps(forwarded)
        except orjson.JSONEncodeError:
            raise await self._refuse_nested(call) from None
        try:
            body = await self._admit(call, body, request)
            if call.guard.route_to:
                rollout, body = await self._reroute(call, body)
        except GuardRefusal as refusal:
            if interface != "chat":
                raise
            return refused_chat(call, refusal.message, request)
        name = self._cache.key_for(call, request)
        if name and (cached := self._find_cached(call, name)):
            return await self._respond_from_cache(call, cached)
        if not streams:
            return await self._respond_whole(call, rollout, body, name)
        events = self._stream_response(call, rollout, body, request, name)
        first = await anext(events)  # an error before the first byte gets its own status
        return first if isinstance(first, Response) else EventStreamResponse(first, events, response_headers(call))

    async def refuse_nested_request(self, interface: str, key: Key, rollout: Rollout) -> ApiError:
        """Record a request whose JSON is nested too deep to be parsed, and return the error for its client."""
        return await self._refuse_nested(Call(interface, key, rollout.champion))

    async def _refuse_nested(self, call: Call) -> ApiError:
        await self._metering.refuse(call, 400)
        return nested_too_deep()

    async def _admit(self, call: Call, body: bytes, request: Mapping[str, Any]) -> bytes:
        """Begin a call, and return its body as the guardrails pass it.

        Raises: ApiError.
        """
        await self._metering.begin(call, len(body), request)
        try:
            return await self._guardrails.check_request(call, body)
        except BaseException as error:
            await self._metering.fail(call, error)
            raise

    async def _reroute(self, call: Call, body: bytes) -> tuple[Rollout, bytes]:
        """Send a call to the release that a rule names, whose own rules apply, too. Raises: ApiError."""
        try:
            rollout = self._upstream.routes.named(call.guard.route_to, LANGUAGE)
            call.share, call.guard.route_to = rollout.assign(call.entity or call.key.id), ""
            model = {} if call.interface == "search" else {"model": call.share.route.tag}
            body = await self._guardrails.check_request(call, orjson.dumps({**orjson.loads(body), **model}))
            if call.guard.route_to:
                raise GuardRefusal("The rules of two releases send this request to each other.", is_chat=True)
        except BaseException as error:
            await self._metering.fail(call, error)
            raise
        return rollout, body

    async def _respond_whole(self, call: Call, rollout: Rollout, body: bytes, name: str | None) -> Response:
        try:
            upstream = await self._send(call, body)
            if upstream.status >= 500:
                raise upstream_error(call, upstream)
            content = upstream.body
            if upstream.status >= 400:
                content = release_error_body(call.share.route.tag, upstream.status, content)
            elif call.is_language:
                call.record_usage(usage_of(content))
            content = await self._guardrails.check_response(call, content)
            if not call.is_language:
                call.classes = predicted_classes(content)
        except BaseException as error:
            await self._metering.fail(call, error)
            raise
        call.response_body = loggable_body(call, content)
        await self._metering.end(call, DONE if upstream.status < 400 else REFUSED, upstream.status)
        if upstream.status < 400:
            self._cache_and_shadow(call, rollout, body, content, name)
        return Response(content, upstream.status, response_headers(call), "application/json")

    async def _send(self, call: Call, body: bytes) -> UpstreamResponse:
        """Forward a call; one with a budget is stopped when the budget is exhausted. Raises: ApiError."""
        if not call.key.budgets:
            return await self._upstream.send(call, PATHS[call.interface], body)
        with self._metering.meter.watch(call, estimate_tokens(len(body))) as watched:
            try:
                async with asyncio.timeout(None) as watched.timeout:
                    return await self._upstream.send(call, PATHS[call.interface], body)
            except TimeoutError:
                raise BudgetExhausted() from None

    async def _stream_response(
        self, call: Call, rollout: Rollout, body: bytes, request: Mapping[str, Any], name: str | None
    ) -> AsyncGenerator[Any]:
        """Yield a stream's events; or, as the only item, the response that came instead of a stream."""
        options = request.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        streamed, is_partly_sent, state, status = bytearray(), False, ABORTED, 499
        last: bytes | Response = error_event(ApiError(502, "The model ended within its answer.").body)
        try:
            with self._metering.meter.watch(call, estimate_tokens(len(body))) as watched:
                async with self._upstream.stream(call, PATHS["chat"], body) as opened:
                    if isinstance(opened, UpstreamResponse):
                        last, state, status = refusal_response(call, opened), REFUSED, opened.status
                    else:
                        self._metrics.observe_first_byte(call, time.perf_counter() - call.started)
                        async with aclosing(split_events(*opened)) as source:
                            async for events in self._guardrails.check_stream(call, source):
                                if watched.stopped:
                                    raise BudgetExhausted
                                streamed += (shown := count_usage(call, events, wants_usage))
                                if DONE_EVENT in shown:
                                    state, status, last = DONE, 200, shown
                                    break
                                is_partly_sent = True
                                yield shown
                            else:
                                state, status = FAILED, 502
        except (ApiError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            refusal = error if isinstance(error, ApiError) else ApiError(502, "The model ended within its answer.")
            state, status = outcome_of(refusal)
            if not is_partly_sent:
                raise refusal from error
            last = error_event(refusal.body)
        except Exception:
            state, status = FAILED, 500
            raise
        finally:
            if streamed and not call.tokens_in:  # it ended before it reported its usage
                call.tokens_in = estimate_tokens(len(body))
            call.response_body = loggable_body(call, bytes(streamed))
            unsettled = await self._metering.try_to_end(call, state, status)
        if unsettled and not is_partly_sent:
            raise unsettled
        if unsettled:
            last = error_event(unsettled.body)
        elif state == DONE:
            self._cache_and_shadow(call, rollout, body, bytes(streamed), name)
        yield last  # settled first: a client that has read the end finds the record

    def _cache_and_shadow(self, call: Call, rollout: Rollout, body: bytes, content: bytes, name: str | None) -> None:
        if name and not call.guard.has_errors:
            self._cache.put(name, content, call)
        self._shadows.copy(call, rollout, PATHS[call.interface], body)

    def _find_cached(self, call: Call, name: str) -> CachedResponse | None:
        cached = self._cache.get(name)
        self._metrics.cache.labels(call.share.route.case, "hit" if cached else "miss").inc()
        return cached

    async def _respond_from_cache(self, call: Call, cached: CachedResponse) -> Response:
        call.tokens_in, call.tokens_cached, call.tokens_out = cached.tokens_in, cached.tokens_in, cached.tokens_out
        call.saved, call.response_body = cached.price, loggable_body(call, cached.body)
        call.retrieval = cached.retrieval
        call.guard.merge(cached.guarded)
        await self._metering.end(call, CACHED, 200)
        headers = {"x-driftline-cache": "hit", "age": str(cached.age), "x-driftline-saved": f"{cached.price / 1e9:.9f}"}
        kind = EventStreamResponse.media_type if cached.body.startswith(b"data: ") else "application/json"
        return Response(cached.body, 200, response_headers(call) | headers, kind)


def refused_chat(call: Call, message: str, request: Mapping[str, Any]) -> Response:
    """The response to a chat that no model answered, in the form that the request asks for."""
    if request.get("stream") is not True:
        return Response(
            orjson.dumps(refusal_completion(call, message)), 200, response_headers(call), "application/json"
        )
    options = request.get("stream_options")
    events = refusal_events(call, message, wants_usage=isinstance(options, dict) and bool(options.get("include_usage")))
    body = b"".join(DATA + orjson.dumps(event) + END for event in events) + DONE_EVENT + END
    return Response(body, 200, response_headers(call), EventStreamResponse.media_type)


def nested_too_deep() -> ApiError:
    return ApiError(400, f"The JSON is nested too deep: the limit is {MAX_DEPTH} levels.", code="too_deep")


def entity_of(body: bytes, entities: tuple[str, ...]) -> str:
    """The entity of a tabular request: the first row's join keys, else its example_id, else the request itself."""
    try:
        row = orjson.loads(body)["rows"][0]
        values = [row[name] for name in entities if name in row] or [row["example_id"]]
        return orjson.dumps(values).decode()
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return body[:MAX_READ].decode(errors="replace")


def response_headers(call: Call) -> dict[str, str]:
    arm = {"x-driftline-arm": call.share.arm} if call.share.arm else {}
    route = call.share.route
    prompt = {"x-driftline-prompt": route.prompt} if route.prompt else {}
    return {"x-request-id": call.id, "x-driftline-release": route.digest, **prompt, **arm}


def refusal_response(call: Call, upstream: UpstreamResponse) -> Response:
    """The response for a whole answer that came instead of a stream. Raises: ApiError when the release failed."""
    if upstream.status >= 500:
        raise upstream_error(call, upstream)
    body = release_error_body(call.share.route.tag, upstream.status, upstream.body)
    return Response(body, upstream.status, response_headers(call), "application/json")


def upstream_error(call: Call, upstream: UpstreamResponse) -> ApiError:
    tag = call.share.route.tag
    if upstream.status == 503:
        return ApiError(503, f"{tag} can't answer now.", code="model_unavailable", wait=2)
    if upstream.status == 504:
        return ApiError(504, f"{tag} did not answer in time.", code="timeout")
    return ApiError(502, f"{tag} failed with {upstream.status}.", code="model_failed")
