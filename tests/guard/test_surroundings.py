"""Promise: redaction finds every kind in every surrounding, and what is no personal data stays as it is."""

from __future__ import annotations

import html
import json
import random
import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.guard.redaction import KINDS, find_spans, redact, redact_json

FAST = settings(
    max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
IBANS = (
    *(
        "DE89370400440532013000",
        "GB82WEST12345698765432",
        "NO9386011117947",
        "BE68539007547034",
        "AT611904300234573201",
    ),
    *(
        "FR1420041010050500013M02606",
        "MT84MALT011000012345MTLCAST001S",
        "NL91ABNA0417164300",
        "PL61109010140000071219812874",
    ),
    *("ES9121000418450200051332", "CH9300762011623852957", "SE4550000000058398257466", "IT60X0542811101000000123456"),
    *("SA0380000000608010167519", "BR1800360305000010009795493C1", "LC55HEMM000100010012001200023015"),
)
CARDS = (
    *(
        "4111111111111111",
        "5500005555555559",
        "378282246310005",
        "6011000990139424",
        "30569309025904",
        "3530111333300000",
    ),
    *("2223000048400011", "4222222222222", "6304000000000000", "4000000000000002"),
)
PHONES = ("+49 30 1234567", "(212) 555-0123", "0171-2345678", "+1 415 555 2671", "+442079460958", "01 23 45 67 89")
EMAILS = ("jo.doe+trips@mail.example.org", "a@b.co", "anna_b-c@sub.domain.example", "müller@straße.example")


def _random(letters: str, count: int, seed: str) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(letters) for _ in range(count))


WORDS = string.ascii_letters + string.digits
SECRETS = (
    "sk-proj-" + _random(WORDS, 48, "openai"),
    "AKIA" + _random(string.ascii_uppercase + string.digits, 16, "amazon"),
    "ghp_" + _random(WORDS, 36, "github"),
    "github_pat_" + _random(WORDS, 60, "github"),
    "xoxb-" + _random(string.digits, 12, "slack") + "-" + _random(WORDS, 24, "slack"),
    "AIza" + _random(WORDS, 35, "google"),
    "dl-" + _random(WORDS + "-_", 43, "driftline"),
    f"eyJhbGciOiJIUzI1NiJ9.eyJ{_random(WORDS, 40, 'b')}.{_random(WORDS, 43, 'c')}",
)
AROUND = (
    *(
        "",
        " ",
        ".",
        ",",
        ";",
        ":",
        "!",
        "?",
        "-",
        "_",
        "/",
        "|",
        "\n",
        "\t",
        "\r\n",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<",
        ">",
    ),
    *(
        '"',
        "'",
        "`",
        "*",
        "**",
        "~",
        "=",
        "#",
        "\u2009",
        "\u00a0",
        "\u200b",
        "\ufeff",
        "\u2011",
        "“",
        "«",
        "…",
        "→",
        "价格",
        "и",
    ),
)
BEFORE = (
    *AROUND,
    "EUR ",
    "€",
    "$",
    "No. ",
    "tel:",
    "mailto:",
    "https://shop.example/?q=",
    "IBAN: ",
    "1. ",
    "x=",
    "&a=",
)
BEHIND = (
    *AROUND,
    " EUR",
    "€",
    " USD",
    " DE",
    " 12/27",
    " 12/27 123",
    " 2013-03-21",
    " 10:30",
    " x",
    "&b=1",
    "#top",
    "</b>",
)


def _percent(text: str) -> str:
    return quote(text, safe="")


def _all_percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _entities(text: str) -> str:
    return "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text)


def _escapes(text: str) -> str:
    return "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text)


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c in string.digits + "@" else c for c in text)


def _invisible(text: str) -> str:
    return "\u200b".join(text)


ENCODINGS = (
    *(str, _percent, _all_percent, _entities, _escapes, _wide, _invisible, html.escape),
    *(lambda text: _percent(_percent(text)), lambda text: json.dumps(json.dumps(text))),
)
GAPS = ("", " ", "-", ".", "_", "/", "·", "  ", "   ", "\n", "\u2009", "\u00a0", "\u2011", " - ", ", ", "\\n", "%20")
VALUES = st.one_of(
    st.tuples(st.just("email"), st.sampled_from(EMAILS)),
    st.tuples(st.just("phone"), st.sampled_from(PHONES)),
    st.tuples(st.just("secret"), st.sampled_from(SECRETS)),
    st.builds(lambda v, gap: ("iban", gap.join(_fours(v))), st.sampled_from(IBANS), st.sampled_from(GAPS)),
    st.builds(lambda v, gap: ("card", gap.join(_fours(v))), st.sampled_from(CARDS), st.sampled_from(GAPS)),
)


def _fours(value: str) -> list[str]:
    return [value[at : at + 4] for at in range(0, len(value), 4)]


def _covers(text: str, kind: str, start: int, end: int) -> bool:
    """Whether one span of this kind reaches over the value; an address may take letters around it with it."""
    return any(span.kind == kind and span.start <= start and span.end >= end for span in find_spans(text))


@FAST
@given(VALUES, st.sampled_from(BEFORE), st.sampled_from(BEHIND), st.sampled_from(ENCODINGS))
def test_every_kind_is_found_in_every_surrounding(value, before, behind, encode):
    """Whatever stands before and behind, and however the value is encoded."""
    kind, written = value
    encoded = encode(written)
    text = f"pay {before}{encoded}{behind} now"
    inner = len(encoded) - len(encoded.strip('"\\'))
    start = 4 + len(before)
    assert _covers(text, kind, start + inner, start + len(encoded) - inner), text


@FAST
@given(VALUES, st.sampled_from(BEFORE), st.sampled_from(BEHIND), st.integers(0, 4), st.booleans())
def test_json_in_json_is_redacted_at_every_level(value, before, behind, levels, as_key):
    """Arguments of a tool's call are JSON within a text; keys are texts as well."""
    _, written = value
    nested: Any = {f"{before}{written}{behind}": 1} if as_key else {"note": [f"{before}{written}{behind}"]}
    for _ in range(levels):
        nested = {"arguments": json.dumps(nested)}
    redacted = redact_json(nested)
    assert "[" in json.dumps(redacted)
    unfolded = json.dumps(redacted)
    assert written not in unfolded
    assert "".join(filter(str.isalnum, written)) not in "".join(filter(str.isalnum, unfolded))
    assert redact_json(redacted) == redacted


@FAST
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from((" and ", ", ", "\n", "; ", " | ")))
def test_values_beside_each_other_are_all_found(values, between):
    """One value is no cover for the next."""
    text = between.join(written for _, written in values)
    redacted, _ = redact(text)
    for _, written in values:
        assert written not in redacted
    assert not any(c.isdigit() for c in redacted), redacted


@FAST
@given(st.text(max_size=80))
def test_spans_lie_in_the_text_in_order(text):
    """Whatever the text is, spans are in order and within it, and redacting twice changes nothing more."""
    spans = find_spans(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    redacted = redact(text)[0]
    assert redact(redacted)[0] == redacted


NUMBERS = (
    *(
        "2013-03-21T10:30:00.123456+00:00",
        "2013-03-21 10:30:15",
        "1700000000000",
        "1700000000.123456",
        "0.4111111111111111",
    ),
    *(
        "123e4567-e89b-12d3-a456-426614174000",
        "UA1545",
        "1,234,567.89",
        "12.50 EUR",
        "1.234.567.890,12",
        "192.168.100.200",
    ),
    *(
        "req-8f14e45fceea167a5a36dedd",
        "d41d8cd98f00b204e9800998ecf8427e",
        "version 3.11.2",
        "1234567890",
        "-73.7781391",
    ),
    *(
        "40.6413111,-73.7781391",
        "[4, 8, 15, 16, 23, 42]",
        "page 12 of 400",
        "9783161484100",
        "2013/14",
        "+5 %",
        "1e-05",
    ),
    *(
        "the secret is out",
        "a key to success",
        "token of thanks",
        "password: required",
        "desk-management-overview-page",
    ),
    *("bearer of good news", "key=monkey", "max_tokens: 2000", "sk-learn", "me@home", "@name", "ratio 16:9", "(12)"),
)


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize("around", ["{}", "({})", '"{}"', "at {} UTC", "{},", "x: {};", "<b>{}</b>"])
def test_numbers_times_and_ids_stay(text, around):
    """What a model must copy is not redacted because it has digits, and prose is no secret."""
    written = around.format(text)
    assert redact(written) == (written, {})


def test_digests_and_ids_stay():
    """Of ten thousand random ones, none is taken for an account or a card."""
    chance = random.Random(0)
    for _ in range(10_000):
        digest = f"{chance.getrandbits(256):064x}"[: chance.choice((24, 32, 40, 64))]
        assert not find_spans(digest), digest


@pytest.mark.parametrize("kind", KINDS)
def test_only_requested_kinds_are_redacted(kind):
    """A case whose answers name telephone numbers can leave them."""
    written = {"email": EMAILS[0], "phone": PHONES[0], "card": CARDS[0], "iban": IBANS[0], "secret": SECRETS[0]}
    redacted, counts = redact("; ".join(written.values()), [kind])
    assert counts == {kind: 1}
    assert all((text in redacted) == (name != kind) for name, text in written.items())
