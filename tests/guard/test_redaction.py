"""Personal data: what is masked, and what only looks like it."""

from __future__ import annotations

import pytest

from tasks.guard.redaction import find_spans, redact

DIGITS, SPACED = " ".join("7" * 40), " ".join("4111111111111111")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jo.doe+trips@mail.example.org.", "Write to [EMAIL]."),
        ("Call +49 30 1234567 or (212) 555-0123!", "Call [PHONE] or [PHONE]!"),
        ("call 0171-2345678 please", "call [PHONE] please"),
        ("Pay with 4111 1111 1111 1111, thanks", "Pay with [CARD], thanks"),
        ("Pay with 4111111111111111", "Pay with [CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [IBAN]"),
        ("to GB82WEST12345698765432 today", "to [IBAN] today"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text, masked):
    """An e-mail address, a telephone, a card and an IBAN each become a placeholder; what stands around stays."""
    redacted, counts = redact(text)
    assert redacted == masked
    assert sum(counts.values()) == masked.count("[")


@pytest.mark.parametrize(
    "text",
    [
        "UA1545 on 2013-03-21, or UA 1545 on 21/03/2013 at 10:30",
        "From 2013-03-21 to 2013-03-28 14:00",
        "order 4111111111111112 has a wrong check digit",
        "DE89 3704 0044 0532 0130 02 is no IBAN",
        "1234567890 pieces, 1,234,567.89 dollars, 12.5 percent",
        "me@home, @name, version 3.11.2",
    ],
)
def test_numbers_and_dates_are_left_alone(text):
    """What a model must copy is not masked because it has digits."""
    assert redact(text) == (text, {})


def test_only_the_kinds_that_the_case_names_are_masked():
    """A case whose answers state telephone numbers can leave them."""
    assert redact("a@b.org, +49 30 1234567", ["email"])[0] == "[EMAIL], +49 30 1234567"


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        (f"{DIGITS} | {SPACED}", [SPACED]),
        (f"{DIGITS} {SPACED}", [SPACED]),
        (f"{DIGITS} {SPACED} {DIGITS}", []),  # as any digits of a long run
        (f"{DIGITS} 4111 1111 1111 1111 {DIGITS}", ["4111 1111 1111 1111"]),
    ],
    ids=["after a bar", "at the end", "in the middle", "grouped in the middle"],
)
def test_a_card_among_many_single_digits_is_found(text: str, cards: list[str]) -> None:
    """Single digits are a card at an end of their run only; a regular number also in the middle."""
    assert [text[span.start : span.end] for span in find_spans(text, ("card",))] == cards
