"""What the predict room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.config import Result


class Predictions(Result):
    """What a release predicted for a frame's examples: partitioned Parquet that a killed run leaves whole."""

    case: str
    release: str  # digest of the release, in full
    as_of: datetime
    start: datetime | None  # first and last event_timestamp of the frame
    end: datetime | None
    rows: int  # examples of the frame that have a prediction now: all of them
    written: int  # of these, predicted by this run; the others were there already
    folder: Path  # OUT/CASE/release=DIGEST12
    paths: tuple[Path, ...]  # the files of the frame's months, sorted
    digest: str  # over the names of these files, which tell their content
