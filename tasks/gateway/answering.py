"""A call from the moment its sender is known to its last byte: assigned, reserved, asked, settled, logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
from starlette.responses import Response

from tasks.gateway.cache import Cache, Kept
from tasks.gateway.call import ABORTED, CACHED, DONE, FAILED, REFUSED, Call
from tasks.gateway.events import DONE_EVENT, counted, error_event, text_of, whole_events
from tasks.gateway.figures import Figures
from tasks.gateway.forward import PATIENCE, Forward, Reply
from tasks.gateway.keys import Key
from tasks.gateway.ledger import Ledger
from tasks.gateway.log import RequestLog
from tasks.gateway.policy import Policy
from tasks.gateway.rates import Rates
from tasks.gateway.refusal import Refusal
from tasks.gateway.routing import SHADOW, Rollout, Share
from tasks.gateway.streamed import Streamed

PATHS = {"predict": "/predict", "chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}
TEMPLATE = 64  # tokens that a chat template adds to messages, at most
MOST_SHADOWS = 32  # copies under way at once; more are not sent
LOGGED = 20_000  # bytes of a request or an answer


class Answering:
    """Everything that the calls of one gateway process share."""

    def __init__(
        self, forward: Forward, ledger: Ledger, rates: Rates, policy: Policy, figures: Figures, log: RequestLog
    ) -> None:
        self._forward, self._ledger, self._rates = forward, ledger, rates
        self._policy, self._figures, self._log = policy, figures, log
        self._cache = Cache()
        self._aside: set[asyncio.Task[None]] = set()

    async def predict(self, key: Key, rollout: Rollout, body: bytes, entity: str) -> Response:
        """Rows to predictions; the release checks the rows, and says what is wrong with them."""
        if not entity and rollout.others:
            entity = entity_of(body, rollout.champion.route.entities)
        call = Call("predict", key, rollout.assign(entity), entity, body[:LOGGED])
        return await self._whole(call, rollout, body, {})

    async def complete(
        self, interface: str, key: Key, rollout: Rollout, asked: Mapping[str, Any], entity: str
    ) -> Response:
        """OpenAI's body to OpenAI's answer."""
        share = rollout.assign(str(asked.get("user") or entity or key.id))
        streams = interface == "chat" and asked.get("stream") is True
        sent = {**asked, "model": share.route.tag}
        if streams:
            sent["stream_options"] = {"include_usage": True}
        body = orjson.dumps(sent)
        call = Call(interface, key, share, str(asked.get("user") or entity), orjson.dumps(asked)[:LOGGED])
        if streams:
            return await self._stream(call, rollout, body, asked)
        return await self._whole(call, rollout, body, asked)

    async def _whole(self, call: Call, rollout: Rollout, body: bytes, asked: Mapping[str, Any]) -> Response:
        await self._begin(call, len(body), asked)
        try:
            body = await self._policy.before(call, body)
            name = self._cache.key(call, asked) if asked else None
            if name and (kept := self._look_up(call, name)):
                return await self._from_cache(call, kept)
            async with self._forward.place(call):
                reply = await self._forward.ask(call, PATHS[call.interface], body)
            if reply.status >= 500:
                raise _broken(call, reply)
            if reply.status < 400 and asked:
                call.used(orjson.loads(reply.body).get("usage") or {})
            answered = await self._policy.after(call, reply.body)
        except BaseException as error:
            await self._end_badly(call, error)
            raise
        call.answered = answered[:LOGGED]
        await self._end(call, DONE if reply.status < 400 else REFUSED, reply.status)
        if name and reply.status < 400:
            self._cache.keep(name, answered, call)
        self._copy_to_shadows(call, rollout, body)
        if call.interface == "predict" and answered.startswith(
            b'{"'
        ):  # one more field, without reading what may be 10,000 rows
            answered = b'{"request_id":"' + call.id.encode() + b'",' + answered[1:]
        return Response(answered, reply.status, headers_of(call), "application/json")

    async def _stream(self, call: Call, rollout: Rollout, body: bytes, asked: Mapping[str, Any]) -> Response:
        await self._begin(call, len(body), asked)
        try:
            body = await self._policy.before(call, body)
            name = self._cache.key(call, asked)
            if name and (kept := self._look_up(call, name)):
                return await self._from_cache(call, kept)
            place = self._forward.place(call)
            await place.__aenter__()
            try:
                opened = await self._forward.open(call, PATHS["chat"], body)
            except BaseException as error:
                await place.__aexit__(type(error), error, None)
                raise
            if isinstance(opened, Reply):
                await place.__aexit__(None, None, None)
                if opened.status >= 500:
                    raise _broken(call, opened)
        except BaseException as error:
            await self._end_badly(call, error)
            raise
        if isinstance(opened, Reply):
            call.answered = opened.body[:LOGGED]
            await self._end(call, REFUSED, opened.status)
            return Response(opened.body, opened.status, headers_of(call), "application/json")
        first, response = opened
        options = asked.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True

        async def events() -> AsyncGenerator[bytes]:
            said, last = bytearray(), error_event(Refusal(502, "The model ended within its answer.").body)
            state, status = ABORTED, 499
            try:
                async with aclosing(whole_events(first, response.content.iter_any())) as source:
                    async for event in self._policy.during(call, source):
                        said += (shown := counted(call, event, wants_usage))
                        if DONE_EVENT in shown:
                            state, status, last = DONE, 200, shown
                            break
                        yield shown
                if state != DONE:
                    state, status = FAILED, 502
            except (aiohttp.ClientError, TimeoutError, ValueError):
                state, status = FAILED, 502
            except Refusal as refusal:
                state, status, last = FAILED, refusal.status, error_event(refusal.body)
            finally:
                response.close()
                await place.__aexit__(None, None, None)
                if not call.tokens_in:  # it had no time to say
                    call.tokens_in = tokens_about(len(body))
                call.answered = text_of(bytes(said))[:LOGGED]
                await self._end(call, state, status)
            if state == DONE:
                if name:
                    self._cache.keep(name, bytes(said), call)
                self._copy_to_shadows(call, rollout, body)
            yield last  # settled first: who has read the end finds it in the ledger

        self._figures.first.labels(*self._labels(call)).observe(time.perf_counter() - call.began)
        return Streamed(events(), headers_of(call))

    async def _begin(self, call: Call, size: int, asked: Mapping[str, Any]) -> None:
        """Raises: Refusal when a limit or a budget does not allow it."""
        route = call.share.route
        seconds, tokens, out = PATIENCE[call.interface], 0, 0
        if asked:
            longest = asked.get("max_completion_tokens") or asked.get("max_tokens") or route.answer_tokens
            out = min(longest, route.context) if isinstance(longest, int) and longest > 0 else route.context
            tokens = tokens_about(size) + out
        call.reserved = route.price.of(min(size + TEMPLATE, route.context) if asked else 0, 0, out, seconds)
        try:
            await self._rates.admit(call.key, tokens)
            await self._ledger.open(call)
        except Refusal as refusal:
            call.key, call.reserved = replace(call.key, purses=()), 0  # nothing was reserved
            await self._ledger.open(call)
            await self._end(call, REFUSED, refusal.status)
            raise

    async def _end(self, call: Call, state: str, status: int) -> None:
        call.ended(state, status)
        await self._ledger.settle(call)
        self._figures.ended(call)
        self._log.put(call)

    async def _end_badly(self, call: Call, error: BaseException) -> None:
        status = (
            error.status if isinstance(error, Refusal) else 499 if isinstance(error, asyncio.CancelledError) else 500
        )
        await self._end(call, ABORTED if status == 499 else REFUSED if status < 500 else FAILED, status)

    def _look_up(self, call: Call, name: str) -> Kept | None:
        kept = self._cache.find(name)
        self._figures.cache.labels(call.share.route.case, "hit" if kept else "miss").inc()
        return kept

    async def _from_cache(self, call: Call, kept: Kept) -> Response:
        call.tokens_in, call.tokens_cached, call.tokens_out = kept.tokens_in, kept.tokens_in, kept.tokens_out
        call.saved, call.answered = kept.price, kept.body[:LOGGED]
        await self._end(call, CACHED, 200)
        said = {"x-driftline-cache": "hit", "age": str(kept.age), "x-driftline-saved": f"{kept.price / 1e9:.9f}"}
        kind = Streamed.media_type if kept.body.startswith(b"data: ") else "application/json"
        return Response(kept.body, 200, headers_of(call) | said, kind)

    def _copy_to_shadows(self, call: Call, rollout: Rollout, body: bytes) -> None:
        for share in rollout.shadows:
            busy = self._forward.lane(share.route.digest).busy
            if not busy and len(self._aside) < MOST_SHADOWS and share.route.digest != call.share.route.digest:
                task = asyncio.create_task(self._ask_shadow(call, share, body))
                self._aside.add(task)
                task.add_done_callback(self._aside.discard)

    async def _ask_shadow(self, original: Call, share: Share, body: bytes) -> None:
        """A copy; its answer is only recorded, and nobody's budget pays for it."""
        call = Call(original.interface, replace(original.key, purses=()), share, original.entity, original.asked)
        if call.interface != "predict":
            sent = orjson.loads(body) | {"model": share.route.tag, "stream": False}
            sent.pop("stream_options", None)
            body = orjson.dumps(sent)
        await self._ledger.open(call)
        try:
            async with self._forward.place(call):
                reply = await self._forward.ask(call, PATHS[call.interface], body)
            if reply.status < 400 and call.interface != "predict":
                call.used(orjson.loads(reply.body).get("usage") or {})
            call.answered = reply.body[:LOGGED]
            await self._end(call, DONE if reply.status < 400 else FAILED, reply.status)
        except (Refusal, asyncio.CancelledError) as error:
            await self._end_badly(call, error)

    @staticmethod
    def _labels(call: Call) -> tuple[str, str, str]:
        return call.share.route.case, call.share.route.digest[:12], call.share.role


def entity_of(body: bytes, entities: tuple[str, ...]) -> str:
    """Whom a table's request is about: the first row's join keys, else its example_id, else the request itself."""
    try:
        row = orjson.loads(body)["rows"][0]
        values = [row[name] for name in entities if name in row] or [row["example_id"]]
        return orjson.dumps(values).decode()
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return body[:LOGGED].decode(errors="replace")


def tokens_about(size: int) -> int:
    """Tokens of so many bytes of prompt, where nobody has counted them."""
    return size // 4


def headers_of(call: Call) -> dict[str, str]:
    arm = {"x-driftline-arm": call.share.arm} if call.share.arm else {}
    told = {"x-request-id": call.id, "x-driftline-release": call.share.route.digest, **arm}
    return told if call.share.role != SHADOW else {}


def _broken(call: Call, reply: Reply) -> Refusal:
    tag = call.share.route.tag
    if reply.status == 503:
        return Refusal(503, f"{tag} can't answer now.", code="model_unavailable", wait=2)
    return Refusal(502, f"{tag} failed with {reply.status}.", code="model_failed")
