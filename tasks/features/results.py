"""What the feature stage returns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from tasks.core.config import Result


class Column(Result):
    """One feature as the model and its service see it."""

    name: str
    kind: Literal["number", "text"]
    origin: str  # "request", or the name of the view that it is joined from
    entities: tuple[str, ...] = ()  # the view's join keys


class Frame(Result):
    """Examples with their point-in-time features, in one Parquet file sorted by time and id.

    Its columns: example_id (text), event_timestamp (UTC), the join keys and slices of the case's SQL, the features,
    and the target (empty while unknown).
    """

    path: Path
    data_digest: str
    definitions_digest: str  # over examples, views and TTLs
    rows: int
    columns: tuple[Column, ...]  # the features, in the order the model takes them
    start: datetime | None  # first and last event_timestamp
    end: datetime | None
    without_target: int = 0  # examples that were left out because their target is empty
