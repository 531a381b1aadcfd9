"""The sections of a case that define its features: what a model may use, and when each value became known."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tasks.core.config import Duration, Result, Section, Sql


class View(Section):
    """One Feast feature view, defined by SQL over the snapshot's tables.

    The SQL returns the entity columns, `event_timestamp`, optionally `created_timestamp` (when the value became known,
    default: event_timestamp), and the features: all its other columns.
    """

    entities: tuple[str, ...] = Field(min_length=1, description="Join keys.")
    sql: Sql
    ttl: Duration = Field(timedelta(0), description="How long a value is valid; 0: for ever.")


class Features(Section):
    """Examples, the features that a request carries, and the views joined to it."""

    examples: Sql = Field(
        description="Returns one row per example: example_id, event_timestamp (the moment of prediction), the views' "
        "join keys, the request columns, slices, and the target (empty while unknown)."
    )
    request: tuple[str, ...] = Field((), description="Columns of examples that each request carries: features as is.")
    views: dict[str, View] = Field({}, description="Feature views by name; their features are joined to examples.")


class FrameSpec(Result):
    """What a frame of features contains besides its rows."""

    features: Features
    target: str  # column of examples
    slices: tuple[str, ...]  # columns of examples, or features
