"""What the request log and feedback may contain of texts."""

from __future__ import annotations

import orjson

from services.gateway.call import MAX_LOGGED
from services.store.feedback import Feedback
from tasks.guard.redaction import find_spans, redact, redact_json

CLOSING, MAX_ROW = "]}", 2_000  # MAX_ROW: bytes of the last, incomplete row that the log leaves out


class LogRedaction:
    """Redacts texts before they are stored."""

    def __init__(self, logged: str = "masked") -> None:
        """`logged`: what may be stored: full, masked (no personal data, no secrets) or none."""
        self._logged = logged

    def redact_for_log(self, text: bytes) -> str:
        """Return what the log may store of a text, up to MAX_LOGGED bytes."""
        if self._logged == "none":
            return ""
        if self._logged == "full":
            return text[:MAX_LOGGED].decode(errors="replace")
        return _redact_text(text) if len(text) <= MAX_LOGGED else _redact_truncated(text)

    def redact_feedback(self, feedback: Feedback) -> Feedback:
        """Return what may be stored of feedback: texts as in the log; `example_id` stays, since it joins calls."""
        if self._logged == "full":
            return feedback
        label, corrected = feedback.label, feedback.corrected
        if isinstance(label, str):
            label = _redact_text(label.encode(errors="replace"))
        if corrected is not None:
            corrected = _redact_text(corrected.encode(errors="replace")) if self._logged == "masked" else ""
        return feedback.model_copy(update={"label": label, "corrected": corrected})


def _redact_text(text: bytes) -> str:
    """Redact a text; JSON stays JSON, since its strings are redacted after decoding.

    In raw JSON a line break is two characters, and the digits of a fraction may look like a card number.
    """
    written = text.decode(errors="replace")
    try:
        value = orjson.loads(text)
        redacted = orjson.dumps(redact_json(value))
    except (ValueError, TypeError):  # not JSON, or nested too deep to be serialised
        return redact(written)[0]
    return written if orjson.dumps(value) == redacted else redacted.decode()


def _whole_rows(text: bytes) -> bytes:
    """The beginning of a JSON object whose last field is a list of objects, cut after a whole one, and closed.

    Empty for anything else: as JSON, texts are redacted one by one, in a tenth of the time.
    """
    end = text.rfind(b"}", 0, text.rfind(b",{")) + 1
    closed = text[:end] + CLOSING.encode()
    try:
        orjson.loads(closed)
    except orjson.JSONDecodeError:
        return b""
    return closed if end > MAX_LOGGED - MAX_ROW else b""


def _redact_truncated(text: bytes) -> str:
    """Redact the beginning of a long text; a value that crosses the end is still recognised."""
    if rows := _whole_rows(text[:MAX_LOGGED]):
        return _redact_text(rows).removesuffix(CLOSING)  # it was cut, and can't be taken for all rows
    written, end = text.decode(errors="replace"), len(text[:MAX_LOGGED].decode(errors="ignore"))
    pieces: list[str] = []
    at = 0
    for kind, start, stop in find_spans(written):
        if start < end:
            pieces += (written[at:start], f"[{kind.upper()}]")
            at = stop
    return "".join((*pieces, written[at : max(end, at)]))
