"""The part of a case that says what a model may look at, and when it was known."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tasks.core.config import Duration, Section, Sql


class View(Section):
    """One Feast feature view, made by SQL over the snapshot's tables.

    The SQL gives the entity columns, `event_timestamp`, optionally `created_timestamp` (when the value became known,
    default: event_timestamp), and the features: all its other columns.
    """

    entities: tuple[str, ...] = Field(min_length=1, description="Join keys.")
    sql: Sql
    ttl: Duration = Field(timedelta(0), description="How long a value holds; 0: for ever.")


class Features(Section):
    """Examples, what a request brings along, and the views joined to it."""

    examples: Sql = Field(
        description="Gives one row an example: example_id, event_timestamp (the moment of prediction), the views' join "
        "keys, the request columns, slices, and the target (empty while unknown)."
    )
    request: tuple[str, ...] = Field((), description="Columns of examples that each request brings: features as is.")
    views: dict[str, View] = Field({}, description="Feature views by name; their features are joined to examples.")
