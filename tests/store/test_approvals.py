"""Promise: a person decides on the evidence that they saw, in time, and not on their own run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from services.serving.process import free_port
from services.store.approvals import Approval, ApprovalRequest, Review, decide, list_approvals, request_approval
from services.store.database import Store, approvals, keys, now
from services.store.keys import create_key
from tasks.core.errors import InputError
from tasks.core.local_secrets import OPERATOR, read_secret
from tasks.core.processes import current_user
from tasks.core.settings import Settings
from tests.gateway.stack import gateway, gateway_client
from tests.waiting import wait_for

DAY = datetime(2020, 1, 1, tzinfo=UTC)
ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def submit(
    book: Store, evidence: str = ONE, by: str = "bo", run: str = "", within: timedelta = timedelta(hours=1)
) -> Approval:
    return request_approval(book, ApprovalRequest("mine", evidence, DAY, by, "all is well", run), within)


def test_a_decision_is_stored_with_person_and_evidence(book):
    submit(book)
    approval = decide(book, "mine", Review(ONE[:12], True, "anna", "terminal", "looked at it"))
    assert (approval.state, approval.decided_by, approval.reason, approval.evidence) == (
        "approved",
        "anna",
        "looked at it",
        ONE,
    )
    assert submit(book).state == "approved", "the run that asks again goes on"


def test_nobody_decides_on_their_own_run(book):
    submit(book, by="Anna")
    with pytest.raises(InputError, match="own run"):
        decide(book, "mine", Review(ONE, True, " anna ", "terminal", ""))
    assert list_approvals(book)[0].state == "waiting"


def test_a_word_without_a_name_is_none(book):
    """What a machine decides can't become a person's word by leaving the name out."""
    submit(book, by="decision 1234")
    with pytest.raises(InputError, match="who decides is unknown"):
        decide(book, "mine", Review(ONE, True, " ", "terminal", ""))


def test_it_lapses_when_the_evidence_changes(book):
    """An approval holds for what was looked at; other evidence is asked about anew, and an old question is closed."""
    submit(book)
    submit(book, OTHER)
    with pytest.raises(InputError, match="other evidence"):
        decide(book, "mine", Review(ONE, True, "anna", "terminal", ""))
    decide(book, "mine", Review(OTHER, True, "anna", "terminal", ""))
    assert {each.evidence: each.state for each in list_approvals(book)} == {ONE: "lapsed", OTHER: "approved"}
    assert submit(book).state == "waiting", "what lapsed can be asked again"


def test_a_request_expires(book):
    submit(book)
    with book.writing() as connection:
        connection.execute(update(approvals).values(expires_at=now() - 1))
    assert submit(book).state == "expired"
    with pytest.raises(InputError, match="No approval of mine is pending"):
        decide(book, "mine", Review(ONE, True, "anna", "terminal", ""))


def test_the_first_word_counts(book):
    submit(book)
    decide(book, "mine", Review(ONE, False, "anna", "terminal", "no"))
    with pytest.raises(InputError, match="No approval of mine is pending"):
        decide(book, "mine", Review(ONE, True, "carl", "terminal", "yes"))
    assert submit(book).state == "rejected"


@pytest.mark.parametrize("name", ["ANNA", "  anna\t", "\uff21nna", "an\u006ea", "\u2003anna\u2003"])
def test_one_person_is_one_however_they_are_written(book, name):
    submit(book, by="anna")
    with pytest.raises(InputError, match="own run"):
        decide(book, "mine", Review(ONE, True, name, "api", ""))


def test_sizes_are_bounded(book):
    submit(book)
    for who, why in (("a" * 121, ""), ("anna", "a" * 2_001)):
        with pytest.raises(InputError, match="too long"):
            decide(book, "mine", Review(ONE, True, who, "api", why))
    assert submit(book).state == "waiting"


@pytest.fixture
def front(tmp_path: Path, book: Store) -> Iterator[Settings]:
    settings = Settings(state=tmp_path, gateway_port=free_port())
    with gateway(settings, settings.gateway_port, tmp_path / "log"):
        yield settings


def key_of(book: Store, settings: Settings, owner: str | None, role: str = "approve") -> tuple[str, str]:
    """The id and secret of a key that the gateway knows already; None: whoever runs this test is its owner."""
    id_, secret = create_key(book, "risk", [role], None, None, None)
    if owner is not None:
        with book.changing() as connection:
            connection.execute(update(keys).where(keys.c.id == id_).values(owner=owner))
    with gateway_client(settings, secret) as http:
        opens = 200 if role == "approve" else 403
        assert wait_for(lambda: http.get("/v1/approvals").status_code == opens, 5)
    return id_, secret


WORD = {"decision": "approve", "evidence": ONE[:12]}


def test_over_http_the_owner_of_a_key_decides(front, book):
    """Kept with the key that it came by; other roles, other evidence, and who has no key are refused."""
    submit(book)
    id_, secret = key_of(book, front, "Anna")
    _, other = key_of(book, front, "Anna", role="predict")
    for wrong, status in (("", 401), (other, 403)):
        with gateway_client(front, wrong) as http:
            assert http.post("/v1/approvals/mine", json=WORD).status_code == status
    with gateway_client(front, secret) as http:
        (waiting,) = http.get("/v1/approvals").json()["approvals"]
        assert waiting["shown"] == "all is well"
        assert http.post("/v1/approvals/mine", json={**WORD, "evidence": "abcdef"}).status_code == 409
        assert http.post("/v1/approvals/mine", json={**WORD, "why": "a" * 2_001}).status_code == 400
        done = http.post("/v1/approvals/mine", json=WORD)
        assert (done.status_code, done.json()["who"], done.json()["via"]) == (201, "Anna", f"api, key {id_}")
        assert http.get("/v1/approvals").json()["approvals"] == []


def test_a_key_that_one_makes_oneself_is_no_other_person(front, book):
    """As at the terminal: the same user asks for the run and holds the key, the operator's key too; nor is nobody."""
    submit(book, by=current_user())
    _, own = key_of(book, front, None)
    _, nobodys = key_of(book, front, "")
    for secret in (own, nobodys, str(read_secret(front.state, OPERATOR))):
        with gateway_client(front, secret) as http:
            answer = http.post("/v1/approvals/mine", json=WORD)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_decided")
    with pytest.raises(InputError, match="own run"):
        decide(book, "mine", Review(ONE, True, current_user(), "terminal", ""))
    assert list_approvals(book)[0].state == "waiting"
