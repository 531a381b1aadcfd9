"""Streams of answers from a knowledge base: whole ones, and those that an engine still writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from services.serving.event_stream import EventStream
from services.serving.knowledge import KnowledgeBase, citation, passage_result
from services.serving.knowledge_chat import KnowledgeAnswer

END, DATA = b"\n\n", b"data: "


def encode_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Server-sent events, with the end of OpenAI's streams."""
    return b"".join(DATA + json.dumps(event).encode() + END for event in events) + DATA + b"[DONE]" + END


class CitedStream(EventStream):
    """An engine's stream whose last choice gets the citations of its text."""

    def __init__(
        self,
        answered: KnowledgeAnswer,
        slot: ExitStack,
        headers: Mapping[str, str],
        knowledge: KnowledgeBase,
        include_passages: bool,
    ) -> None:
        assert answered.prepared
        first, source = answered.stream
        super().__init__(first, source, slot, headers)
        self._knowledge, self._prepared, self._text = knowledge, answered.prepared, ""
        self._extra = {"passages": list(map(passage_result, answered.prepared.hits))} if include_passages else {}

    async def _events(self) -> AsyncIterator[bytes]:
        buffer = b""
        async for chunk in super()._events():
            *events, buffer = (buffer + chunk).split(END)
            yield b"".join([await self._cited(event) + END for event in events])
        if buffer:
            yield buffer

    async def _cited(self, event: bytes) -> bytes:
        if not event.startswith(DATA + b"{"):
            return event
        message = json.loads(event.removeprefix(DATA))
        for choice in message.get("choices", ()):
            self._text += choice["delta"].get("content") or ""
            if choice.get("finish_reason"):
                answer = await self._knowledge.finish(self._prepared, self._text)
                choice["delta"]["citations"] = list(map(citation, answer.citations))
                return DATA + json.dumps(message | self._extra).encode()
        return event
