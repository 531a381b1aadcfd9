"""Feedback on an answer: its true label or a rating, joined to the call by the request id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy import ColumnElement, Connection, func, insert, select

from services.store.api_error import ApiError
from services.store.database import Store, feedback, now, predictions, usage_records
from services.store.keys import LOCAL_KEY, Key

ACCEPTED_SCORE = 0.5  # the score from which on an answer is accepted
MAX_NUMBER = 2**53  # of a label: every whole number up to here is exact as a float
MAX_RECORDS = 1_000  # for one request, all its rows together
MAX_TEXT = 20_000  # characters of a corrected answer or of a label

Whole = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
LabelText = Annotated[str, Field(max_length=MAX_TEXT)]

FEEDBACK_FIELDS = ("label", "score", "thumbs", "corrected", "preferred")


class Feedback(BaseModel):
    """At least one of the fields is required."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"label": 1}, {"thumbs": "up"}],
            "anyOf": [{"required": [name]} for name in FEEDBACK_FIELDS],
        },
    )

    example_id: str | None = Field(None, max_length=200, description="The row of the request.")
    label: bool | Whole | Number | LabelText | None = Field(None, description="The true outcome.")
    score: float | None = Field(None, ge=0, le=1, strict=True, description="Rating of the answer, 0 to 1.")
    thumbs: Literal["up", "down"] | None = None
    corrected: str | None = Field(None, max_length=MAX_TEXT, description="The correct answer.")
    preferred: str | None = Field(None, max_length=40, description="Request id of the better of two answers.")

    @field_validator("label", mode="before")
    @classmethod
    def _bounded(cls, label: Any) -> Any:
        if isinstance(label, int | float) and not -MAX_NUMBER <= label <= MAX_NUMBER:  # neither is NaN between them
            raise ValueError(f"a number is at least -2^53 and at most 2^53 ({MAX_NUMBER})")
        if isinstance(label, str) and len(label) > MAX_TEXT:
            raise ValueError(f"a text has at most {MAX_TEXT:,} characters")
        if label is not None and not isinstance(label, bool | int | float | str):
            raise ValueError("a label is true, false, a number or a text")
        return label

    @model_validator(mode="after")
    def _says_something(self) -> Feedback:
        if all(getattr(self, name) is None for name in FEEDBACK_FIELDS):
            raise ValueError(f"it needs one of {', '.join(FEEDBACK_FIELDS)}")
        return self


def rating_of(payload: Mapping[str, Any]) -> str | None:
    """The rating in a feedback record: up, down or a score; None without one."""
    if "thumbs" in payload:
        return str(payload["thumbs"])
    if "score" in payload:
        return str(payload["score"])
    return "down" if "corrected" in payload or "preferred" in payload else None


def acceptance(connection: Connection, *calls: ColumnElement[bool]) -> dict[tuple[str, str], bool]:
    """Whether the answers of these calls were accepted, by request id and example_id; the latest feedback counts."""
    words = (
        select(feedback.c.request_id, feedback.c.payload, predictions.c.classes)
        .join(usage_records, usage_records.c.id == feedback.c.request_id)
        .outerjoin(predictions, predictions.c.request_id == feedback.c.request_id)
        .where(*calls)
        .order_by(feedback.c.id)
    )
    found = {}
    for id_, payload, classes in connection.execute(words):
        payload, classes = (value if isinstance(value, Mapping) else {} for value in (payload, classes))
        if (accepted := _accepts(payload, classes)) is not None:
            found[id_, str(payload.get("example_id", ""))] = accepted
    return found


def _accepts(payload: Mapping[str, Any], classes: Mapping[str, int | str]) -> bool | None:
    """Whether the label equals the prediction, or else the rating is good; None where the feedback has neither."""
    predicted = _class_of(classes, str(payload.get("example_id", "")))
    if "label" in payload and isinstance(predicted, str):
        return predicted == str(payload["label"])
    if "label" in payload and predicted is not None:
        label = _number(payload["label"])
        return None if label is None else predicted == label
    opinion = rating_of(payload)
    if opinion in (None, "up", "down"):
        return None if opinion is None else opinion == "up"
    score = _number(opinion)
    return None if score is None else score >= ACCEPTED_SCORE


def _number(value: Any) -> float | None:
    """A value as a finite number, if it is one; earlier versions stored labels of any type and size."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _class_of(classes: Mapping[str, int | str], example_id: str) -> int | str | None:
    """The predicted class of a row; for a request of one row, `example_id` may be missing."""
    return next(iter(classes.values())) if len(classes) == 1 and not example_id else classes.get(example_id)


def store_feedback(store: Store, key: Key, request_id: str, payload: Feedback) -> dict[str, Any]:
    """Store a feedback record; return its request, case and release.

    Raises: ApiError when the key's team has no such request, the request has no such row, or it already has
    MAX_RECORDS records.
    """
    query = select(usage_records.c.team, usage_records.c.digest, usage_records.c.case, predictions.c.classes).outerjoin(
        predictions, predictions.c.request_id == usage_records.c.id
    )
    for id_ in filter(None, (request_id, payload.preferred)):
        with store.reading() as connection:
            # else the database fails
            call = connection.execute(query.where(usage_records.c.id == id_)).first() if id_.isprintable() else None
        if call is None or (call.team != key.team and key is not LOCAL_KEY):
            raise ApiError(404, f"There is no request {id_!r} of this team.", code="request_not_found")
        if id_ == request_id:
            about = {"request_id": id_, "case": call.case, "release": call.digest}
            of_a_row = payload.example_id or payload.label is not None
            if (
                isinstance(call.classes, dict)
                and call.classes
                and of_a_row
                and _class_of(call.classes, payload.example_id or "") is None
            ):
                raise ApiError(400, "example_id: no row of the request has this id.", param="example_id")
    values = payload.model_dump(exclude_none=True)
    with store.writing() as connection:
        records = select(func.count()).where(feedback.c.request_id == request_id)
        if connection.execute(records).scalar_one() >= MAX_RECORDS:
            raise ApiError(
                409, f"Request {request_id} has {MAX_RECORDS:,} feedback records, the most allowed.", code="too_many"
            )
        row = {"request_id": request_id, "at": now(), "team": key.team, "key": key.id, "payload": values}
        connection.execute(insert(feedback).values(**row))
    return about
