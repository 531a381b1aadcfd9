"""What an answer states must stand in its passages: what is caught, and what is known to be missed."""

from __future__ import annotations

import pytest

from tasks.language.groundedness import supported_share, unsupported

PASSAGES = [
    "Run `driftline rollback CASE` to restore the previous champion. It takes 3 s and needs two keys.",
    "The gateway caches 1,000 answers in `state/answers`. Set DRIFTLINE_STATE, or pass --json for output of MLflow.",
]


@pytest.mark.parametrize(
    "answer",
    [
        "Run `driftline rollback CASE`: it takes three seconds.",  # a number in words
        "1. It needs 2 keys [1].",  # numbers of lists and citations state nothing
        "It caches 1000 answers in state/answers.",
        "Pass --json, and MLflow's output is JSON.",
        "Restore the champion with driftline rollback.",
        "",
    ],
)
def test_what_stands_in_a_passage_is_supported(answer: str) -> None:
    """Another spelling of a number, a command without its marks, and an empty answer are no statement of their own."""
    assert unsupported(answer, PASSAGES) == []


@pytest.mark.parametrize(
    ("answer", "lacking"),
    [
        ("It takes 5 s.", ["5"]),
        ("It takes 30 s.", ["30"]),
        ("It takes four seconds.", ["four"]),
        ("Run `driftline undo CASE`.", ["driftline undo CASE"]),
        ("Set DRIFTLINE_DATA and pass --yaml.", ["DRIFTLINE_DATA", "--yaml"]),
        ("It is kept in state/cache by Redis.", ["state/cache", "Redis"]),
        ("Then Kubernetes restores it at https://example.org/x.", ["https://example.org/x", "Kubernetes"]),
    ],
)
def test_what_stands_in_no_passage_is_named(answer: str, lacking: list[str]) -> None:
    """Invented numbers, commands, variables, flags, paths, names and addresses are listed."""
    assert unsupported(answer, PASSAGES) == lacking


@pytest.mark.parametrize(
    "answer",
    [
        "It does not restore the previous champion.",  # a negation
        "The gateway needs two keys.",  # facts of two passages, joined
        "Kubernetes restores the previous champion.",  # a name as the first word of a sentence
    ],
)
def test_what_words_alone_cannot_catch(answer: str) -> None:
    """These are the known limits, which the documentation states."""
    assert unsupported(answer, PASSAGES) == []


def test_a_sentence_needs_a_passage_with_its_words() -> None:
    """An answer about something else is not supported, even without a number or a name."""
    assert supported_share("Restore the previous champion. Elephants eat green bananas.", PASSAGES) == 0.5
    assert supported_share("", PASSAGES) == 1.0


@pytest.mark.parametrize("times", [2, 50])
def test_repeating_an_answer_changes_nothing(times: int) -> None:
    """What is lacking comes once and in order, however often it stands in the answer."""
    answer = (
        "It takes 40 s, or 7 minutes with `driftline undo` of ACME on /srv/data.\nthen eleven keys, says Ann Smith.\n"
    )
    lacking = unsupported(answer, PASSAGES)
    assert lacking == ["driftline undo", "/srv/data", "40", "7", "eleven", "ACME", "Ann", "Smith"]
    assert unsupported(answer * times, PASSAGES) == lacking
