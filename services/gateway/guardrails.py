"""Guardrails: every request and response passes the rules of its release, and is redacted, refused or flagged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson

from services.gateway.call import MAX_READ, Call
from services.gateway.guard_chat import (
    GuardRefusal,
    TextPlace,
    conversation_of,
    message_texts,
    refuse_choice,
    request_texts,
    response_choices,
)
from services.gateway.guard_rules import GuardRules
from services.gateway.guard_stream import guarded_events
from services.store.api_error import ApiError
from tasks.guard.engine import GuardEngine, masked
from tasks.guard.results import Context, Conversation, GuardResult

FEW = 8  # texts of a request; more are checked in one thread
MANY_SECONDS = 20.0  # for these
JOINED = 10  # last messages of the user that are also checked together


class Guardrails:
    """Applies the rules of releases."""

    def __init__(self, rules: GuardRules, logged: str = "masked") -> None:
        """`logged`: what the request log may contain: full, masked (no personal data, no secrets) or none."""
        self._rules, self._logged = rules, logged

    async def check_request(self, call: Call, body: bytes) -> bytes:
        """Return the request that is sent to the release. Raises: ApiError when its rules refuse it."""
        engine = await self._rules.engine(call.share.route)
        tables = engine.guardrails.tables if engine and call.interface == "predict" else ()
        if engine is None or not (engine.rules("input") or engine.rules("tools") or tables):
            return _with_passages(call, body, engine)
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body  # the release refuses it
        places = [*request_texts(call.interface, request)]
        logged: list[tuple[TextPlace, str]] = []
        refused: GuardResult | None = None
        conversation = conversation_of(request) if call.interface == "chat" else None
        for place, result in zip(places, await self._check_all(engine, places, conversation), strict=True):
            call.guard.add(result)
            refused = refused or (result if result.action == "refuse" else None)
            if result.fired:
                logged.append((place, masked(result, place.text)))
            place.replace(result.text)
        refused = refused or await self._check_together(call, engine, places)
        if tables and isinstance(request, dict):
            call.guard.add(result := await asyncio.to_thread(engine.check_rows, request.get("rows")))
            refused = refused or (result if result.action == "refuse" else None)
        changed = _with_passages(call, orjson.dumps(request), engine)
        if logged and self._logged != "full":
            for place, text in logged:
                place.replace(text)
            call.request_body = orjson.dumps(request)[:MAX_READ]
        if refused:
            raise GuardRefusal(refused.message, is_chat=call.interface == "chat")
        return changed

    async def check_response(self, call: Call, answered: bytes) -> bytes:
        """Return the whole response that is sent to the client."""
        engine = await self._rules.engine(call.share.route)
        if engine is None or call.interface != "chat":
            return answered
        if not (engine.rules("output") or engine.rules("tools") or call.guard.restored or engine.needs_passages):
            return answered
        response = _object(answered)
        context = _context(response)
        for choice in response_choices(response):
            await self._check_choice(call, engine, choice, context)
        if engine.needs_passages and not call.wants_passages:
            response.pop("passages", None)
        return orjson.dumps(response)

    async def check_stream(self, call: Call, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the events that are sent to the client; both sides are whole events."""
        engine = await self._rules.engine(call.share.route)
        if engine is None or not (engine.rules("output") or engine.rules("tools") or call.guard.restored):
            async for event in events:
                yield event
            return
        async for event in guarded_events(call, engine, events):
            yield event

    async def _check(
        self, call: Call, engine: GuardEngine, place: TextPlace, context: Context | None = None
    ) -> GuardResult:
        result = await engine.check_async(place.text, place.stage, context=context)
        call.guard.add(result)
        return result

    async def _check_all(
        self, engine: GuardEngine, places: list[TextPlace], conversation: Conversation | None
    ) -> list[GuardResult]:
        """Check all texts of a request; the limits of a conversation with the last message of the user.

        Raises: ApiError when many texts take too long.
        """
        last = next((place for place in reversed(places) if place.of_user), None)
        contexts = [Context(conversation=conversation) if place is last else Context() for place in places]
        if len(places) <= FEW:
            return [
                await engine.check_async(place.text, place.stage, context=context)
                for place, context in zip(places, contexts, strict=True)
            ]

        def work() -> list[GuardResult]:
            return [
                engine.check(place.text, place.stage, context=context)
                for place, context in zip(places, contexts, strict=True)
            ]

        try:
            return await asyncio.wait_for(asyncio.to_thread(work), MANY_SECONDS)
        except TimeoutError:
            raise ApiError(503, "The rules for this request take too long.", code="guardrails_slow", wait=5) from None

    async def _check_together(self, call: Call, engine: GuardEngine, places: list[TextPlace]) -> GuardResult | None:
        """Check what the user wrote over several turns as one text: a demand may be split."""
        turns = [place.text for place in places if place.of_user][-JOINED:]
        if len(turns) < 2:
            return None
        result = await engine.check_async(" ".join(turns), "input")
        if result.action != "refuse" or call.guard.refused_by:
            return None
        call.guard.add(result)
        return result

    async def _check_choice(self, call: Call, engine: GuardEngine, choice: Any, context: Context) -> None:
        """Redact the answer of a choice, or replace it by a refusal; then restore what placeholders stand for."""
        context = replace(context, citations=len(choice["message"].get("citations") or ()))
        for place in message_texts(choice["message"], "output"):
            result = await self._check(call, engine, place, context)
            if result.action == "refuse":
                refuse_choice(choice, result.message)
                return
            if result.text != place.text:
                choice.pop("logprobs", None)
            place.replace(call.guard.restore(result.text))


def _object(body: bytes) -> dict[str, Any]:
    """Raises: ApiError for anything but a JSON object: it can't be checked."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(502, "The model's response is not a JSON object.", code="model_failed")
    return value


def _context(response: dict[str, Any]) -> Context:
    passages = response.get("passages") or ()
    return Context(passages=tuple(str(each.get("text", "")) for each in passages if isinstance(each, dict)))


def _with_passages(call: Call, body: bytes, engine: GuardEngine | None) -> bytes:
    """The request of passages, which rules for the answer read."""
    if engine is None or not engine.needs_passages or call.interface != "chat":
        return body
    return orjson.dumps({**orjson.loads(body), "include_passages": True})
