"""A person's word on a release: on the evidence that they saw, in time, and not on their own run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from tasks.foundation.errors import InputError
from tasks.foundation.settings import Settings
from tasks.ledger.approvals import Approval, ask, decide, listed
from tasks.ledger.keys import create
from tasks.ledger.store import Store, approvals, now
from tasks.release.process import free_port
from tests.gateway.small import asking, gateway

DAY = datetime(2020, 1, 1, tzinfo=UTC)
ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def asked(
    book: Store, evidence: str = ONE, by: str = "bo", run: str = "", within: timedelta = timedelta(hours=1)
) -> Approval:
    return ask(book, "mine", evidence, DAY, by, run, "all is well", within)


def test_a_word_is_kept_with_who_gave_it_and_on_what(book):
    asked(book)
    said = decide(book, "mine", ONE[:12], True, "anna", "terminal", "looked at it")
    assert (said.state, said.who, said.why, said.evidence) == ("approved", "anna", "looked at it", ONE)
    assert asked(book).state == "approved", "the run that asks again goes on"


def test_nobody_decides_on_their_own_run(book):
    asked(book, by="Anna")
    with pytest.raises(InputError, match="own run"):
        decide(book, "mine", ONE, True, " anna ", "terminal", "")
    assert listed(book)[0].state == "waiting"


def test_a_word_without_a_name_is_none(book):
    """What a machine decides can't become a person's word by leaving the name out."""
    asked(book, by="decision 1234")
    with pytest.raises(InputError, match="Who decides"):
        decide(book, "mine", ONE, True, " ", "terminal", "")


def test_it_lapses_when_the_evidence_changes(book):
    """An approval holds for what was looked at; other evidence is asked about anew, and an old question is closed."""
    asked(book)
    asked(book, OTHER)
    with pytest.raises(InputError, match="evidence has changed"):
        decide(book, "mine", ONE, True, "anna", "terminal", "")
    decide(book, "mine", OTHER, True, "anna", "terminal", "")
    assert {each.evidence: each.state for each in listed(book)} == {ONE: "lapsed", OTHER: "approved"}
    assert asked(book).state == "waiting", "what lapsed can be asked again"


def test_nobody_answering_in_time_is_a_no(book):
    asked(book)
    with book.writing() as to:
        to.execute(update(approvals).values(expires_at=now() - 1))
    assert asked(book).state == "expired"
    with pytest.raises(InputError, match="Nothing of mine waits"):
        decide(book, "mine", ONE, True, "anna", "terminal", "")


def test_the_first_word_counts(book):
    asked(book)
    decide(book, "mine", ONE, False, "anna", "terminal", "no")
    with pytest.raises(InputError, match="Nothing of mine waits"):
        decide(book, "mine", ONE, True, "carl", "terminal", "yes")
    assert asked(book).state == "rejected"


def test_over_http_a_key_that_may_approve_decides(tmp_path):
    """The key's id and team are who decided; other roles, and nobody with a name, are refused."""
    settings = Settings(state=tmp_path, gateway_port=free_port())
    book = Store(settings)
    asked(book)
    word = {"decision": "approve", "evidence": ONE[:12]}
    with gateway(settings, settings.gateway_port, tmp_path / "log"):
        with asking(settings) as http:
            assert http.post("/v1/approvals/mine", json=word).status_code == 403, "without keys nobody has a name"
        id_, secret = create(book, "risk", ["approve"], None, None, None)
        _, other = create(book, "risk", ["predict"], None, None, None)
        import time

        time.sleep(1.2)
        with asking(settings, other) as http:
            assert http.post("/v1/approvals/mine", json=word).status_code == 403
        with asking(settings, secret) as http:
            (waiting,) = http.get("/v1/approvals").json()["approvals"]
            assert waiting["shown"] == "all is well"
            assert http.post("/v1/approvals/mine", json={**word, "evidence": "abcdef"}).status_code == 409
            done = http.post("/v1/approvals/mine", json=word)
            assert (done.status_code, done.json()["who"]) == (201, f"key {id_} of risk")
            assert http.get("/v1/approvals").json()["approvals"] == []
    book.close()
