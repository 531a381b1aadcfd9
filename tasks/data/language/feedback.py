"""Logged answers with people's feedback as instruction pairs: what was liked, and what was corrected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.data.language.pairs import LOG, Pair, PairFormat, content_of, read_row, write_if_json

WORDS = {"up": True, "down": False, "true": True, "false": False}


def is_log(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are rows of a log: a message, the answer that was given, and what somebody thought of it."""
    return bool(rows) and set(LOG) <= set(rows[0]) and bool({"messages", "prompt"} & set(rows[0]))


def read_log(
    name: str, rows: Sequence[Mapping[str, Any]], form: PairFormat, liked: float, left_out: Counter[str]
) -> list[Pair]:
    """Make pairs of answers that were liked, or corrected: then the answer given becomes the rejected one.

    A score is liked from `liked` on. What teaches nothing (disliked without a correction, or no feedback) is left out,
    and counted in `left_out`.
    """
    pairs = []
    for row in rows:
        asked = row["messages"] if row.get("messages") is not None else row.get("prompt")
        given, correction = content_of(row["answer"]), content_of(row.get("correction"))
        opinion, problem = _opinion(row["feedback"], liked)
        told = {"prompt": asked, "completion": correction or given, "intent": row.get("intent")}
        if problem is None and not correction and opinion is not True:
            left_out["disliked without a correction" if opinion is False else "without feedback"] += 1
            continue
        pair = read_row(name, told, ("prompt", "completion"), form)
        rejected = write_if_json(given, form) if correction else None
        if rejected and rejected != pair.answer:
            pair = replace(pair, rejected=rejected)
        pairs.append(replace(pair, problem=problem or pair.problem))
    return pairs


def right_answer(row: Mapping[str, Any], liked: float) -> str:
    """What is known to be right: a completion, a correction, or of a log the answer that was liked; else nothing."""
    if told := content_of(row.get("completion")) or content_of(row.get("correction")):
        return told
    return content_of(row.get("answer")) if _opinion(row.get("feedback"), liked)[0] else ""


def _opinion(value: Any, liked: float) -> tuple[bool | None, str | None]:
    """Whether it was liked, None where nobody said; and what is wrong with the feedback."""
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
