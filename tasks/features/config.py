"""The sections of a case that define its features: what a model may use, and when each value became known."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from pydantic import Field, field_validator

from tasks.core.config import Duration, Result, Section, Sql

RESERVED = {  # columns that the platform adds to examples, predictions and outcomes
    *("example_id", "event_timestamp", "created_timestamp", "partition_month"),
    *("prediction", "score", "outcome", "as_of", "release_digest"),
}


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

    @field_validator("request")
    @classmethod
    def _are_free(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_free(names)
        return names


def free_name(name: str) -> str:
    """The name for a feature: another one than a column that the platform adds."""
    return f"its_{name}" if name.lower() in RESERVED else name


def check_free(names: Iterable[str]) -> None:
    """Raises: ValueError for names of columns that the platform adds itself."""
    if taken := [name for name in names if free_name(name) != name]:
        new = f'"{taken[0]}" AS {free_name(taken[0])}'
        raise ValueError(
            f"the platform has columns of its own called {', '.join(taken)}; rename yours in the SQL, such as {new}"
        )


class FrameSpec(Result):
    """What a frame of features contains besides its rows."""

    features: Features
    target: str  # column of examples
    slices: tuple[str, ...]  # columns of examples, or features
