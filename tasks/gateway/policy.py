"""The one place in every call's way where what is asked and answered can be allowed, masked, refused or flagged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from tasks.data.pairs.privacy import FORMS, mask
from tasks.gateway.call import Call


class Policy:
    """Lets everything pass. Guardrails extend it; each may change what goes through it, or raise a Refusal."""

    def __init__(self, logged: str = "masked") -> None:
        """`logged` says what of requests and answers the log may keep: full, masked (no personal data) or none."""
        self._logged = logged

    async def before(self, call: Call, asked: bytes) -> bytes:
        """What the release is asked."""
        return asked

    async def after(self, call: Call, answered: bytes) -> bytes:
        """What the client gets of a whole answer."""
        return answered

    async def during(self, call: Call, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What the client gets of a stream; whole events come in, and whole events go out."""
        async for event in events:
            yield event

    def logged(self, text: bytes) -> str:
        """What may be written down of it.

        JSON stays JSON: what its texts say is masked, not how they are written. There a line break is a letter, and
        the digits of a fraction may look like a card's.
        """
        if self._logged == "none":
            return ""
        written = text.decode(errors="replace")
        if self._logged == "full":
            return written
        try:
            value = orjson.loads(text)
            masked = _masked(value)
        except (orjson.JSONDecodeError, RecursionError):
            return mask(written, FORMS)[0]
        return written if masked == value else orjson.dumps(masked).decode()


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {mask(key, FORMS)[0]: _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    if isinstance(value, str):
        return mask(value, FORMS)[0]
    if isinstance(value, int):
        written, found = mask(str(value), FORMS)
        return written if found else value
    return value
