"""A case without pairs is evaluated on messages: of its traffic, its documents, or general ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.core.duckdb import connect
from tasks.data.config import Answer, ChatSpec, Pairs, PairsSpec, Source
from tasks.data.language.splits import make_splits
from tasks.data.language.unlabelled import LEAST, unlabelled_pairs
from tasks.language.prompts import Prompt

CHAT = ChatSpec(prompt=Prompt(system="Be brief."), answer=Answer(format="text"), context=512)
LOG = Source(uri="log://desk", key=("request_id",), time="requested_at")
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)


def spec(**changes) -> PairsSpec:
    return PairsSpec(pairs=Pairs(), chat=CHAT, sources={"requests": LOG}, tuned=False, **changes)


@pytest.fixture
def db():
    with connect() as opened:
        opened.execute("CREATE TABLE requests (request_id TEXT, requested_at TIMESTAMPTZ, messages TEXT)")
        yield opened


def ask(db, *texts: str) -> None:
    for at, text in enumerate(texts):
        messages = f'[{{"role": "system", "content": "x"}}, {{"role": "user", "content": "{text}"}}]'
        db.execute("INSERT INTO requests VALUES (?, to_timestamp(?), ?)", [str(at), at, messages])


def test_without_traffic_general_messages_evaluate(db):
    """Enough for a comparison with a champion, all different, none with a right answer."""
    splits, _ = make_splits(db, Pairs(), CHAT.answer, AS_OF, tuned=False, unlabelled=unlabelled_pairs(db, spec()))
    assert set(splits) == {"evaluation"}
    pairs = splits["evaluation"]
    assert len(pairs) == len({pair.pair_id for pair in pairs}) == LEAST
    assert not any(pair.answer or pair.required_facts or pair.problem for pair in pairs)


def test_traffic_comes_first_and_is_redacted(db):
    """The newest messages first, a repeated one once, personal data masked, the system message left out."""
    ask(db, "Where is it?", "where is it", "Write to eva@example.com")
    pairs = unlabelled_pairs(db, spec(traffic="requests", messages=("Guide: Return a parcel",)))
    assert [pair.text for pair in pairs[:3]] == ["Write to eva@example.com", "where is it", "Guide: Return a parcel"]
    assert len(pairs) == LEAST
    splits, report = make_splits(db, Pairs(), CHAT.answer, AS_OF, tuned=False, unlabelled=pairs)
    assert "eva@example.com" not in splits["evaluation"][0].text
    assert report.redacted["email"] == 1


def test_enough_own_messages_need_no_general_ones(db):
    own = tuple(f"Guide: Part {n}" for n in range(LEAST))
    assert {pair.origin for pair in unlabelled_pairs(db, spec(messages=own))} == {"documents"}
