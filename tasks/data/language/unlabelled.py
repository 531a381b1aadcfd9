"""Messages without right answers: what a case without pairs is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier
from tasks.data.config import PairsSpec
from tasks.data.language.conversation import conversation
from tasks.data.language.near_duplicates import normalize
from tasks.data.language.pairs import Pair
from tasks.data.language.source_tables import read_rows
from tasks.language.messages import USER, chat_message

if TYPE_CHECKING:
    import duckdb

RECORDED = 120  # messages of the case's traffic, the latest
LEAST = 40  # messages, if need be with general ones: a comparison with the champion needs 30
GENERAL = tuple(
    f"{start} {rest}"
    for start, rest in (
        ("Hello,", "who are you?"),
        ("What", "can you do for me?"),
        ("What", "do I have to know before I begin?"),
        ("How", "do I get help from a person?"),
        ("Good morning!", "I have a question."),
        ("Thank you,", "that is all."),
        ("Please", "explain that again in simple words."),
        ("Please", "give me a short summary of the most important points."),
        ("Can you", "answer in one sentence what this is about?"),
        ("Can you", "give me an example?"),
        ("Why", "does it not work?"),
        ("Where", "do I find more about it?"),
        ("When", "was this changed last?"),
        ("Which", "of them is better, and why?"),
        ("How much", "does it cost?"),
        ("How long", "does it take?"),
        ("Is it", "possible to undo it?"),
        ("Is it", "safe?"),
        ("I am", "not sure what to ask."),
        ("I am", "angry, nothing works."),
        ("My", "order has not arrived. What now?"),
        ("My", "name is Anna. What is my name?"),
        ("What", "is 12 plus 30?"),
        ("What", "day is it today?"),
        ("Translate", "'good evening' into French."),
        ("Write", "a polite refusal of an invitation."),
        ("List", "three reasons to drink water."),
        ("Repeat", "the word yes."),
        ("Name", "a colour."),
        ("Tell me", "something that I do not know."),
        ("Which", "city is the capital of France?"),
        ("How", "many minutes are in two hours?"),
        ("Describe", "the sea to a child."),
        ("Compare", "a bicycle with a car."),
        ("Correct", "this sentence: she go to school."),
        ("What", "is the opposite of early?"),
        ("Should", "I call or write?"),
        ("Who", "is responsible for this?"),
        ("What", "happens to my data?"),
        ("asdf", "qwer"),
    )
)


def unlabelled_pairs(db: duckdb.DuckDBPyConnection, spec: PairsSpec) -> list[Pair]:
    """Messages of the case's traffic, if there is some, and those of the spec; general ones make up the number."""
    pairs: dict[str, Pair] = {}
    for pair in _candidates(db, spec):
        if pair.origin == "general" and len(pairs) >= LEAST:
            break
        if pair.text.strip():
            pairs.setdefault(normalize(pair.text), pair)
    return list(pairs.values())


def _candidates(db: duckdb.DuckDBPyConnection, spec: PairsSpec) -> Iterator[Pair]:
    if spec.traffic:
        moment = spec.sources[spec.traffic].time
        order = f" ORDER BY {quote_identifier(moment)} DESC" if moment else ""
        for row in read_rows(db, f"FROM {quote_identifier(spec.traffic)}{order} LIMIT {RECORDED}"):
            turns = conversation(row.get("messages") or row.get("prompt"))
            before = tuple(turn for turn in turns if turn["role"] not in ("system", "developer"))
            yield Pair(before, "", "traffic", spec.traffic)
    for origin, messages in (("documents", spec.messages), ("general", GENERAL)):
        for text in messages:
            yield Pair((chat_message(USER, text),), "", origin, origin)
