"""Logged responses with feedback become pairs: the liked ones and the corrected ones; the rest is counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.data.language.feedback import is_log, read_log
from tasks.data.language.pairs import Pair
from tests.data.test_curate import orders, rows, shop  # noqa: F401 (a fixture)
from tests.data.test_pairs import ANSWER, FORM, WRITTEN, user

NONE = '{"do":"none"}'


def read(*rows: dict, liked: float = 0.5) -> tuple[list[Pair], Counter]:
    left: Counter[str] = Counter()
    return read_log("log", rows, FORM, liked=liked, skipped=left), left


@pytest.mark.parametrize("feedback", ["up", "Up", True, 1, 0.8, "1", '"up"'])
def test_a_liked_answer_becomes_a_pair(feedback: Any) -> None:
    """Thumbs up, in each way in which a log may write it; the request is a text or a chat with its system prompt."""
    chat = [{"role": "system", "content": "Obey"}, user("Two large hats")]
    for request in ({"prompt": "Two large hats"}, {"messages": chat}, {"messages": json.dumps(chat)}):
        (pair,), left = read({**request, "answer": ANSWER, "feedback": feedback})
        assert (pair.messages, pair.answer, pair.rejected, pair.problem) == (
            (user("Two large hats"),),
            WRITTEN,
            None,
            None,
        )
        assert not left


@pytest.mark.parametrize("feedback", ["down", False, 0, 0.2, None, "up"])
def test_a_correction_is_the_right_answer(feedback: Any) -> None:
    """The logged response is then the rejected answer, JSON or not, whatever the thumb."""
    (pair,), left = read({"prompt": "Hats", "answer": "Sure!", "feedback": feedback, "correction": ANSWER})
    assert (pair.answer, pair.rejected, pair.problem) == (WRITTEN, "Sure!", None)
    assert not left
    (same,), _ = read({"prompt": "Hats", "answer": ANSWER, "feedback": feedback, "correction": WRITTEN})
    assert (same.answer, same.rejected, same.problem) == (WRITTEN, None, None)


def test_what_teaches_nothing_is_left_out_and_counted() -> None:
    """Disliked without a correction, and no feedback at all."""
    down = {"prompt": "Hats", "answer": ANSWER, "feedback": "down", "correction": None}
    pairs, left = read(down, down, {**down, "feedback": None}, {**down, "feedback": ""})
    assert pairs == []
    assert left == {"disliked without a correction": 2, "without feedback": 2}


def test_the_case_says_which_score_is_liked() -> None:
    """Of five stars, three are not enough where the case wants four."""
    stars = [{"prompt": "Hats", "answer": ANSWER, "feedback": n} for n in (3, 4, 5)]
    assert len(read(*stars, liked=4)[0]) == 2
    assert len(read(*stars)[0]) == 3


def test_bad_rows_say_why() -> None:
    """A thumb that is none, an answer that was liked and still breaks the schema: to the quarantine."""
    (odd,), _ = read({"prompt": "Hats", "answer": ANSWER, "feedback": "meh"})
    assert "neither up, nor down, nor a number: 'meh'" in (odd.problem or "")
    (broken,), _ = read({"prompt": "Hats", "answer": "Sure!", "feedback": "up"})
    assert "not JSON" in (broken.problem or "")


def test_only_a_log_is_read_as_one() -> None:
    assert is_log([{"messages": "[]", "answer": "", "feedback": None}])
    assert not is_log([{"prompt": "a", "completion": "b", "feedback": "up"}])
    assert not is_log([])


def test_a_log_becomes_pairs_to_learn_from(shop) -> None:  # noqa: F811
    """Through the curation: corrections carry what was rejected, and the card counts what was left out."""
    liked = [{"prompt": each["prompt"], "answer": each["completion"], "feedback": "up"} for each in orders(90)]
    fixed = [
        {"prompt": each["prompt"], "answer": NONE, "feedback": "down", "correction": each["completion"]}
        for each in orders(180)[90:]
    ]
    ignored = [{**each, "correction": None} for each in fixed[:7]]
    shop.add_rows("mine", [*liked, *fixed[7:], *ignored, {**ignored[0], "feedback": None}])
    curated = shop.curate(sources=["mine"])
    pairs = [row for split in curated.files for row in rows(curated, split)]
    assert sum(row["rejected"] is None for row in pairs) == 90
    assert sum(row["rejected"] == NONE for row in pairs) == 83
    card: str = Path(curated.files["train"].parent / "card.md").read_text()
    assert "- logged answers skipped: 7 disliked without a correction, 1 without feedback\n" in card
