"""What became of an answer, or what somebody thinks of it, joined to the call by its request id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import ColumnElement, Connection, insert, select

from tasks.ledger.keys import LOCAL, Key
from tasks.ledger.refusal import Refusal
from tasks.ledger.store import Store, feedback, ledger, now, predictions

LIKED = 0.5  # the score from which on an answer is accepted

SAYS = ("label", "score", "thumbs", "corrected", "preferred")


class Feedback(BaseModel):
    """At least one of them."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"label": 1}, {"thumbs": "up"}],
            "anyOf": [{"required": [name]} for name in SAYS],
        },
    )

    example_id: str | None = Field(None, max_length=200, description="Which row of a request is meant.")
    label: bool | int | float | str | None = Field(None, description="What turned out to be true.")
    score: float | None = Field(None, ge=0, le=1, strict=True, description="How good it was.")
    thumbs: Literal["up", "down"] | None = None
    corrected: str | None = Field(None, max_length=20_000, description="The answer that it should have been.")
    preferred: str | None = Field(None, max_length=40, description="Request id of the better one of two answers.")

    @model_validator(mode="after")
    def _says_something(self) -> Feedback:
        if all(getattr(self, name) is None for name in SAYS):
            raise ValueError(f"say one of {', '.join(SAYS)}")
        return self


def opinion_of(said: Mapping[str, Any]) -> str | None:
    """What somebody thought of an answer: up, down or a score; None where the feedback is no opinion."""
    if "thumbs" in said:
        return str(said["thumbs"])
    if "score" in said:
        return str(said["score"])
    return "down" if "corrected" in said or "preferred" in said else None


def acceptance(of: Connection, *calls: ColumnElement[bool]) -> dict[tuple[str, str], bool]:
    """Which answers of these calls of the ledger were accepted, by request id and example_id: the last word on each."""
    words = (
        select(feedback.c.request_id, feedback.c.said, predictions.c.classes)
        .join(ledger, ledger.c.id == feedback.c.request_id)
        .outerjoin(predictions, predictions.c.request_id == feedback.c.request_id)
        .where(*calls)
        .order_by(feedback.c.number)
    )
    found = {}
    for id_, said, classes in of.execute(words):
        if (accepted := _accepts(said, classes or {})) is not None:
            found[id_, said.get("example_id", "")] = accepted
    return found


def _accepts(said: Mapping[str, Any], classes: Mapping[str, int | str]) -> bool | None:
    """Whether a label says that it was right, or else somebody liked it; None where the feedback says neither."""
    predicted = _class_of(classes, said.get("example_id", ""))
    if "label" in said and isinstance(predicted, str):
        return predicted == str(said["label"])
    if "label" in said and predicted is not None:
        try:
            return predicted == float(said["label"])
        except ValueError:
            return None
    opinion = opinion_of(said)
    return None if opinion is None else opinion == "up" or (opinion != "down" and float(opinion) >= LIKED)


def _class_of(classes: Mapping[str, int | str], example_id: str) -> int | str | None:
    """The class that a row was given; the one row of a request need not be named."""
    return next(iter(classes.values())) if len(classes) == 1 and not example_id else classes.get(example_id)


def give(store: Store, key: Key, request_id: str, said: Feedback) -> dict[str, Any]:
    """Write it down, and tell which release it is about.

    Raises: Refusal when this key's team has asked nothing of that id, or none of its rows is meant.
    """
    asked = select(ledger.c.team, ledger.c.digest, ledger.c.case, predictions.c.classes).outerjoin(
        predictions, predictions.c.request_id == ledger.c.id
    )
    for id_ in filter(None, (request_id, said.preferred)):
        with store.reading() as of:
            # else the database fails
            call = of.execute(asked.where(ledger.c.id == id_)).first() if id_.isprintable() else None
        if call is None or (call.team != key.team and key is not LOCAL):
            raise Refusal(404, f"There is no request {id_!r} of this team.", code="request_not_found")
        if id_ == request_id:
            about = {"request_id": id_, "case": call.case, "release": call.digest}
            of_a_row = said.example_id or said.label is not None
            if call.classes and of_a_row and _class_of(call.classes, said.example_id or "") is None:
                raise Refusal(400, "example_id: it names none of the request's rows.", param="example_id")
    values = said.model_dump(exclude_none=True)
    with store.writing() as to:
        row = {"request_id": request_id, "at": now(), "team": key.team, "key": key.id, "said": values}
        to.execute(insert(feedback).values(**row))
    return about
