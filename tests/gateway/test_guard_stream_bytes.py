"""Promise: however the bytes of a stream are cut, inside characters and escapes too, no forbidden text passes."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from services.gateway.guard_stream import guarded_events
from services.gateway.sse_events import DATA, DONE_EVENT, END, split_events
from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine
from tests.gateway.in_process import call_of

pytestmark = pytest.mark.anyio
SENTENCE = """the harbour is quiet at noon and \u00fcber na\u00efve \u6f22\u5b57 \U0001f600 you can wait,
or "ask" a\\b again."""
PLAIN = SENTENCE.split()
FORBIDDEN = [
    "ann.lee@example.org",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "bl\u200borbo",
    "bl\u043erbo",
    "4111&#49;11111111111",
]
RULES: list[dict[str, Any]] = [{"check": "personal_data"}, {"check": "words", "words": ["blorbo"]}]


def engine(action: str) -> GuardEngine:
    return GuardEngine(Guardrails.model_validate({"output": [{**rule, "action": action} for rule in RULES]}))


def make_text(chance: random.Random) -> str:
    words = [chance.choice(FORBIDDEN if chance.random() < 0.06 else PLAIN) for _ in range(chance.randint(1, 60))]
    return "".join(word + chance.choice([" ", " ", "\n", "  "]) for word in words)


def pieces(whole: Any, chance: random.Random, sizes: tuple[int, ...]) -> Iterator[Any]:
    at = 0
    while at < len(whole):
        size = chance.choice(sizes)
        yield whole[at : at + size]
        at += size


def make_events(text: str, chance: random.Random) -> bytes:
    """A delta for each piece, some with escapes; some pieces end within the surrogate pair of a character."""
    halves = [half for letter in text for half in _halves(letter, chance)]
    events = []
    for piece in pieces(halves, chance, (1, 2, 3, 8, 40)):
        content = "".join(piece)
        is_ascii = chance.random() < 0.5 or any("\ud800" <= half <= "\udfff" for half in content)
        choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
        message = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
        events.append(DATA + json.dumps(message, ensure_ascii=is_ascii).encode())
    return END.join([*events, DONE_EVENT, b""])


def _halves(letter: str, chance: random.Random) -> list[str]:
    if ord(letter) < 0x10000 or chance.random() < 0.5:
        return [letter]
    raw = letter.encode("utf-16-be")
    return [raw[:2].decode("utf-16-be", "surrogatepass"), raw[2:].decode("utf-16-be", "surrogatepass")]


async def passed(guard: GuardEngine, text: str, chance: random.Random) -> tuple[str, bool]:
    """The text that a client gets, and whether the stream was refused."""

    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces(make_events(text, chance), chance, (1, 2, 5, 30, 700)):
            yield piece

    events = [each async for each in guarded_events(call_of(interface="chat"), guard, split_events(b"", arriving()))]
    messages = [orjson.loads(each[len(DATA) :]) for each in b"".join(events).split(END) if each and each != DONE_EVENT]
    deltas = [choice for message in messages for choice in message["choices"]]
    sent = "".join(choice["delta"].get("content") or "" for choice in deltas)
    return sent, any(choice["finish_reason"] == "content_filter" for choice in deltas)


async def compare(count: int, seed: int) -> None:
    chance = random.Random(seed)
    redacting, refusing = engine("redact"), engine("refuse")
    for _ in range(count):
        text = make_text(chance)
        assert await passed(redacting, text, chance) == (redacting.check(text, "output").text, False)
        whole = refusing.check(text, "output")
        sent, is_refused = await passed(refusing, text, chance)
        assert is_refused == (whole.action == "refuse")
        first = min((span.start for outcome in whole.outcomes for span in outcome.spans), default=len(text))
        assert text.startswith(sent)
        assert len(sent) <= first


async def test_bytes_cut_anywhere_pass_what_the_whole_would():
    await compare(40, 0)


@pytest.mark.long
async def test_ten_thousand_streams_of_bytes_pass_no_more():
    await compare(10_000, 1)
