"""The one place in every call's way where what is asked and answered can be allowed, masked, refused or flagged."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tasks.data.privacy import FORMS, mask
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
        """What may be written down of it."""
        if self._logged == "none":
            return ""
        decoded = text.decode(errors="replace")
        return decoded if self._logged == "full" else mask(decoded, FORMS)[0]
