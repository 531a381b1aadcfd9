"""Turns logged responses with user feedback into instruction pairs: liked ones and corrected ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.data.language.conversation import content_of
from tasks.data.language.pairs import LOG, Pair, PairFormat, read_row, write_if_json

WORDS = {"up": True, "down": False, "true": True, "false": False}


def is_log(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are rows of a log: a message, its response, and the user's feedback."""
    return bool(rows) and set(LOG) <= set(rows[0]) and bool({"messages", "prompt"} & set(rows[0]))


def read_log(
    name: str, rows: Sequence[Mapping[str, Any]], form: PairFormat, *, liked: float, skipped: Counter[str]
) -> list[Pair]:
    """Pairs of responses that were liked, or corrected: then the response becomes the rejected answer.

    A score of at least `liked` is positive. Rows that teach nothing (disliked without a correction, or no feedback) are
    skipped, and counted in `skipped`.
    """
    pairs = []
    for row in rows:
        prompt = row["messages"] if row.get("messages") is not None else row.get("prompt")
        response, correction = content_of(row["answer"]), content_of(row.get("correction"))
        is_liked, problem = _parse_feedback(row["feedback"], liked)
        if problem is None and not correction and is_liked is not True:
            skipped["disliked without a correction" if is_liked is False else "without feedback"] += 1
            continue
        completed = {"prompt": prompt, "completion": correction or response, "intent": row.get("intent")}
        pair = read_row(name, completed, ("prompt", "completion"), form)
        rejected = write_if_json(response, form) if correction else None
        if rejected and rejected != pair.answer:
            pair = replace(pair, rejected=rejected)
        pairs.append(replace(pair, problem=problem or pair.problem))
    return pairs


def expected_answer(row: Mapping[str, Any], liked: float) -> str:
    """A row's completion or correction, or in a log the response that was liked; else an empty text."""
    if expected := content_of(row.get("completion")) or content_of(row.get("correction")):
        return expected
    return content_of(row.get("answer")) if _parse_feedback(row.get("feedback"), liked)[0] else ""


def _parse_feedback(value: Any, liked: float) -> tuple[bool | None, str | None]:
    """Whether it was liked, None without feedback; and what is wrong with the feedback."""
    if isinstance(value, bool):
        return value, None
    text = str("" if value is None else value).strip().strip('"').lower()
    if not text or text == "null":
        return None, None
    if text in WORDS:
        return WORDS[text], None
    try:
        return float(text) >= liked, None
    except ValueError:
        return None, f"the feedback is neither up, nor down, nor a number: {text[:40]!r}"
