"""The one place in every call's way where what is asked and answered can be allowed, masked, refused or flagged."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from services.gateway.call import LOGGED, Call
from services.store.feedback import Feedback
from tasks.guard.redaction import find_spans, redact, redact_json


class Guardrails:
    """Lets everything pass. Guardrails extend it; each may change what goes through it, or raise a Refusal."""

    def __init__(self, logged: str = "masked") -> None:
        """`logged` says what the log may keep: full, masked (no personal data, no secrets) or none."""
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
        """What may be written down of it, up to LOGGED bytes."""
        if self._logged == "none":
            return ""
        if self._logged == "full":
            return text[:LOGGED].decode(errors="replace")
        return _redacted(text) if len(text) <= LOGGED else _cut(text)

    def stored(self, feedback: Feedback) -> Feedback:
        """What may be stored of feedback: its texts as in the log; `example_id` stays, since calls are joined by it."""
        if self._logged == "full":
            return feedback
        label, corrected = feedback.label, feedback.corrected
        if isinstance(label, str):
            label = _redacted(label.encode(errors="replace"))
        if corrected is not None:
            corrected = _redacted(corrected.encode(errors="replace")) if self._logged == "masked" else ""
        return feedback.model_copy(update={"label": label, "corrected": corrected})


def _redacted(text: bytes) -> str:
    """JSON stays JSON: what its texts say is redacted, not how they are written.

    There a line break is a letter, and the digits of a fraction may look like a card's.
    """
    written = text.decode(errors="replace")
    try:
        value = orjson.loads(text)
        redacted = orjson.dumps(redact_json(value))
    except (ValueError, TypeError):  # no JSON, or too deep to be written again
        return redact(written)[0]
    return written if orjson.dumps(value) == redacted else redacted.decode()


def _cut(text: bytes) -> str:
    """The beginning of a long text, redacted; what reaches over its end is seen whole, as far as it was read."""
    written, end = text.decode(errors="replace"), len(text[:LOGGED].decode(errors="ignore"))
    pieces: list[str] = []
    at = 0
    for kind, start, stop in find_spans(written):
        if start < end:
            pieces += (written[at:start], f"[{kind.upper()}]")
            at = stop
    return "".join((*pieces, written[at : max(end, at)]))
