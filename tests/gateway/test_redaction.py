"""Promise: neither the request log nor stored feedback holds personal data or secrets, unless the setting says full."""

from __future__ import annotations

import json

import orjson
import pytest
from sqlalchemy import select

from services.gateway.call import MAX_LOGGED, MAX_READ, Call
from services.gateway.log_redaction import LogRedaction
from services.gateway.sse_events import DONE_EVENT, END, error_event, loggable_body
from services.rollout.routing import LANGUAGE, Route, Share
from services.store.database import Store, feedback
from services.store.feedback import Feedback
from services.store.keys import LOCAL_KEY
from tasks.core.settings import Settings
from tests.gateway.stack import gateway_client

CARD, EMAIL = "4111 1111 1111 1111", "ann@example.org"
MASKED = LogRedaction("masked")


def chat() -> Call:
    return Call("chat", LOCAL_KEY, Share(Route("d" * 64, "talker", LANGUAGE, ()), "champion"))


@pytest.mark.parametrize("cut", range(1, len(CARD)))
def test_a_value_split_over_events_is_redacted(cut):
    """The log reads the whole text of each choice."""
    pieces = [(0, "Pay " + CARD[:cut]), (1, EMAIL[:5]), (0, CARD[cut:] + " now"), (1, EMAIL[5:])]
    events = b"".join(error_event({"choices": [{"index": n, "delta": {"content": content}}]}) for n, content in pieces)
    assert MASKED.redact_for_log(loggable_body(chat(), events + DONE_EVENT + END)) == "Pay [CARD] now\n[EMAIL]"


@pytest.mark.parametrize("before", range(MAX_LOGGED - 25, MAX_LOGGED + 3))
def test_a_value_at_the_end_of_what_is_logged_is_found(before):
    """A text that is longer than the log keeps is cut behind the redaction."""
    written = MASKED.redact_for_log(("x" * (before - 1) + " " + CARD + "y" * 5000).encode()[:MAX_READ])
    assert "4111" not in written
    assert "11" not in written
    assert len(written) <= MAX_LOGGED + len("[CARD]")


def test_many_rows_are_cut_after_a_whole_one():
    """Their texts are redacted as in a short request; numbers stay; and the rest can't be read as all rows."""
    row = {"to": EMAIL, "lat": 40.6413111111, "card": f"Pay {CARD} now, please"}
    written = MASKED.redact_for_log(orjson.dumps({"rows": [row] * 1000})[:MAX_READ])
    redacted = {"to": "[EMAIL]", "lat": 40.6413111111, "card": "Pay [CARD] now, please"}
    rows = orjson.loads(written + "]}")["rows"]
    assert rows == [redacted] * len(rows)
    assert len(rows) > 100
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(written)


@pytest.mark.parametrize("last", [EMAIL + "},{" * 9_000, "},{" * 6_000 + CARD], ids=["brackets", "long"])
def test_a_long_text_after_a_row_is_logged(last):
    """Braces within a text end no row, and no long text is left out with the incomplete row."""
    written = MASKED.redact_for_log(orjson.dumps({"rows": [{"a": EMAIL}, {"b": last}]})[:MAX_READ])
    assert EMAIL not in written
    assert "4111" not in written
    assert len(written) > MAX_LOGGED - 2_100


@pytest.mark.parametrize("levels", [1, 200, 300, 900, 2_500])
def test_json_of_any_depth_is_redacted(levels):
    """What can be read but not written again, or not be read, is redacted as text."""
    written = MASKED.redact_for_log(b'{"a":' * levels + orjson.dumps([EMAIL, CARD]) + b"}" * levels)
    assert written.count("[EMAIL]") == written.count("[CARD]") == 1
    assert EMAIL not in written


def test_json_stays_json_with_its_own_numbers():
    """Fractions and whole numbers of tables stay; a key is a text as well; arguments are JSON within JSON."""
    value = {"rows": [{"lat": 40.6413111111, "n": 1234567890, EMAIL: 1, "args": json.dumps({"to": EMAIL})}]}
    assert orjson.loads(MASKED.redact_for_log(orjson.dumps(value))) == {
        "rows": [{"lat": 40.6413111111, "n": 1234567890, "[EMAIL]": 1, "args": '{"to": "[EMAIL]"}'}]
    }
    untouched = b'{ "rows": [ {"x": 0.4111111111111111} ] }'
    assert MASKED.redact_for_log(untouched) == untouched.decode()


@pytest.mark.parametrize(
    ("setting", "stored"),
    [
        ("full", {"corrected": f"write to {EMAIL}", "label": EMAIL}),
        ("masked", {"corrected": "write to [EMAIL]", "label": "[EMAIL]"}),
        ("none", {"corrected": "", "label": "[EMAIL]"}),
    ],
)
def test_feedback_is_stored_as_the_setting_says(setting, stored):
    """A correction teaches: it is redacted as the answer is that it corrects."""
    submitted = Feedback(corrected=f"write to {EMAIL}", label=EMAIL, example_id="row 1")
    assert LogRedaction(setting).redact_feedback(submitted).model_dump(exclude_none=True) == {
        **stored,
        "example_id": "row 1",
    }


@pytest.mark.xdist_group("gateway")
def test_feedback_over_http_is_redacted(settings: Settings, talker):
    """By HTTP, into the ledger."""
    with gateway_client(settings) as http:
        body = {"model": "talker", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
        id_ = http.post("/v1/chat/completions", json=body).headers["x-request-id"]
        key = "sk-proj-Ab3dEf6hIj9lMn2pQr5t"
        assert http.post(f"/v1/feedback/{id_}", json={"corrected": f"ask {EMAIL}, {key}"}).status_code == 201
    store = Store(settings)
    with store.reading() as connection:
        stored = connection.execute(select(feedback.c.payload).where(feedback.c.request_id == id_)).scalar_one()
    store.close()
    assert stored == {"corrected": "ask [EMAIL], [SECRET]"}
