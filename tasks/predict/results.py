"""What the predict package hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.config import Result


class Predictions(Result):
    """Predictions of a release for a window: partitioned Parquet, which a killed run leaves intact."""

    case: str
    release: str  # digest of the release, in full
    as_of: datetime
    start: datetime | None  # first and last event_timestamp of the frame
    end: datetime | None
    rows: int  # examples of the frame, all of which have a prediction
    written: int  # of these, predicted by this run; the others existed before
    folder: Path  # OUT/CASE/release=DIGEST12
    paths: tuple[Path, ...]  # the files of the frame's months, sorted
    digest: str  # over the names of these files, which depend on their content
