"""The events of a stream, with the text that the rules of its release pass; nothing sent is taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson

from services.gateway.call import Call
from services.gateway.guard_chat import message_texts, refusal_deltas
from services.gateway.sse_events import DATA, DONE_EVENT, END
from services.store.api_error import ApiError
from tasks.guard.engine import INLINE, GuardEngine
from tasks.guard.results import Context, GuardResult
from tasks.guard.stream import GuardedText

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")  # of a delta


class _Choice:
    """What arrived of one choice, and was not sent."""

    def __init__(self, engine: GuardEngine) -> None:
        self.texts = {name: GuardedText(engine) for name in TEXTS}
        self.halves: dict[str, str] = {}  # of surrogate pairs whose other half has not arrived
        self.tool_deltas: list[dict[str, Any]] = []
        self.is_refused = False

    def whole_characters(self, name: str, piece: str) -> str:
        """A piece without half a surrogate pair at its end, which waits for the other half."""
        piece = self.halves.pop(name, "") + piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self.halves[name], piece = piece[-1], piece[:-1]
        return piece if piece.isascii() else _join(piece)


async def guarded_events(call: Call, engine: GuardEngine, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole events.

    Raises: ApiError for an event that is not in OpenAI's form: it can't be checked.
    """
    stream = _Stream(call, engine)
    async for several in events:
        passed: list[bytes] = []
        for event in several.split(END):
            if event.strip():
                passed += await stream.take(event)
            if stream.is_over:
                break
        if passed:
            yield b"".join(each + END for each in passed)
        if stream.is_over:
            return


class _Stream:
    def __init__(self, call: Call, engine: GuardEngine) -> None:
        self._call, self._engine = call, engine
        self._choices: dict[Any, _Choice] = {}
        self._frame: dict[str, Any] = {}
        self._restorer: dict[tuple[Any, str], str] = {}
        self.is_over = False

    async def take(self, event: bytes) -> list[bytes]:
        """The events that may be sent once this one has arrived."""
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if not data:
            return [event]  # a comment, which keeps the connection open
        if data == b"[DONE]":
            rest = [each for index in self._choices for each in await self._finish(index, Context())]
            self.is_over = True
            return [*rest, DONE_EVENT]
        message = _parse(data)
        self._frame = {name: message[name] for name in ("id", "object", "created", "model") if name in message}
        context = Context(passages=tuple(str(each.get("text", "")) for each in message.get("passages") or ()))
        if "passages" in message and self._engine.needs_passages and not self._call.wants_passages:
            message.pop("passages")
        passed: list[bytes] = []
        choices = []
        for choice in message.get("choices") or ():
            index = choice.get("index", 0)
            known = self._choices.setdefault(index, _Choice(self._engine))
            if known.is_refused:
                continue
            delta = choice.get("delta") or {}
            choice.pop("logprobs", None)  # they spell the text that is held back
            await self._take_delta(index, known, delta)
            if any(text.refusal for text in known.texts.values()):
                passed += self._refuse(index, known)
                continue
            if choice.get("finish_reason"):
                citations = len(delta.get("citations") or ())
                passed += await self._finish(index, replace(context, citations=citations))
                if known.is_refused:
                    continue
            if delta or choice.get("finish_reason"):
                choices.append(choice)
        if choices or not message.get("choices"):
            passed.append(DATA + orjson.dumps({**message, "choices": choices}))
        if self._choices and all(each.is_refused for each in self._choices.values()):
            self.is_over = True
            passed.append(DONE_EVENT)
        return passed

    async def _take_delta(self, index: Any, known: _Choice, delta: dict[str, Any]) -> None:
        """Replace the texts of a delta by what may be sent of them; tool calls wait for their end."""
        for name in TEXTS:
            if not isinstance(arrived := delta.get(name), str):
                continue
            text, piece = known.texts[name], known.whole_characters(name, arrived)
            is_long = len(piece) + text.pending > INLINE
            may_send = await asyncio.to_thread(text.push, piece) if is_long else text.push(piece)
            self._count(text)
            if may_send := self._restore(index, name, may_send):
                delta[name] = may_send
            elif arrived:  # the first delta has an empty text, which stays
                del delta[name]
                self._call.tokens_out += 1  # an estimate, until the release reports its usage
        if delta.get("tool_calls") and self._engine.rules("tools"):
            known.tool_deltas.append({"tool_calls": delta.pop("tool_calls")})

    async def _finish(self, index: Any, context: Context) -> list[bytes]:
        """The rest of a choice's texts, checked with the whole; and its tool calls."""
        known = self._choices[index]
        if known.is_refused:
            return []
        rest: dict[str, str] = {}
        for name, text in known.texts.items():
            piece = await asyncio.to_thread(text.finish, context) if text.pending > INLINE else text.finish(context)
            self._count(text)
            if piece := self._restore(index, name, piece, is_end=True):
                rest[name] = piece
        if any(text.refusal for text in known.texts.values()):
            return [*self._deltas(index, [rest] if rest else []), *self._refuse(index, known)]
        if refusal := await self._check_tool_calls(known):
            return self._refuse(index, known, refusal.message)
        return self._deltas(index, [*([rest] if rest else []), *known.tool_deltas])

    async def _check_tool_calls(self, known: _Choice) -> GuardResult | None:
        """The refusal of a tool call; redacted arguments replace the pieces that arrived."""
        if not known.tool_deltas:
            return None
        called: dict[Any, dict[str, Any]] = {}
        for each in (piece for delta in known.tool_deltas for piece in delta["tool_calls"]):
            whole = called.setdefault(each.get("index", 0), {**each, "function": {"name": "", "arguments": ""}})
            for key in ("name", "arguments"):
                whole["function"][key] += (each.get("function") or {}).get(key) or ""
        known.tool_deltas = [{"tool_calls": list(called.values())}]
        for place in message_texts({"tool_calls": list(called.values())}):
            result = await self._engine.check_async(place.text, "tools")
            self._call.guard.add(result)
            if result.action == "refuse":
                return result
            place.replace(self._call.guard.restore(result.text))
        return None

    def _refuse(self, index: Any, known: _Choice, message: str = "") -> list[bytes]:
        known.is_refused = True
        refusal = next((text.refusal for text in known.texts.values() if text.refusal), None)
        shown = message or (refusal.message if refusal else "")
        return [self._event(choice) for choice in refusal_deltas(index, shown)]

    def _deltas(self, index: Any, deltas: list[dict[str, Any]]) -> list[bytes]:
        return [self._event({"index": index, "delta": delta, "finish_reason": None}) for delta in deltas]

    def _event(self, choice: dict[str, Any]) -> bytes:
        return DATA + orjson.dumps({**self._frame, "choices": [choice]})

    def _count(self, text: GuardedText) -> None:
        for result in text.results:
            self._call.guard.add(result)
        text.results.clear()

    def _restore(self, index: Any, name: str, piece: str, *, is_end: bool = False) -> str:
        """Replace placeholders of the request by their values; one that is incomplete waits."""
        if not self._call.guard.restored:
            return piece
        text = self._restorer.pop((index, name), "") + piece
        at = text.rfind("[")
        longest = max(map(len, self._call.guard.restored))
        if not is_end and at >= 0 and "]" not in text[at:] and len(text) - at < longest:
            self._restorer[index, name] = text[at:]
            text = text[:at]
        return self._call.guard.restore(text)


def _parse(data: bytes) -> dict[str, Any]:
    """An event's object; half of a surrogate pair, which orjson refuses, is read too.

    Raises: ApiError.
    """
    message: Any = None
    for loads in (orjson.loads, json.loads):
        try:
            message = loads(data)
            break
        except ValueError:
            continue
    if not isinstance(message, dict):
        raise ApiError(502, "The model's stream has an event that is not a JSON object.", code="model_failed")
    return message


def _join(text: str) -> str:
    """Surrogate pairs as the characters that they stand for; half a pair can't be sent."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
