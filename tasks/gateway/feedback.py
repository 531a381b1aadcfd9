"""What became of an answer, or what somebody thinks of it, joined to the call by its request id."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import insert, select

from tasks.gateway.keys import LOCAL, Key
from tasks.gateway.refusal import Refusal
from tasks.gateway.store import Store, feedback, ledger, now

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


def give(store: Store, key: Key, request_id: str, said: Feedback) -> dict[str, Any]:
    """Write it down, and tell which release it is about.

    Raises: Refusal when this key's team has asked nothing of that id.
    """
    for id_ in filter(None, (request_id, said.preferred)):
        with store.reading() as of:
            asked = select(ledger.c.team, ledger.c.digest, ledger.c.case).where(ledger.c.id == id_)
            call = of.execute(asked).first() if id_.isprintable() else None  # else the database fails
        if call is None or (call.team != key.team and key is not LOCAL):
            raise Refusal(404, f"There is no request {id_!r} of this team.", code="request_not_found")
        if id_ == request_id:
            about = {"request_id": id_, "case": call.case, "release": call.digest}
    values = said.model_dump(exclude_none=True)
    with store.writing() as to:
        row = {"request_id": request_id, "at": now(), "team": key.team, "key": key.id, "said": values}
        to.execute(insert(feedback).values(**row))
    return about
