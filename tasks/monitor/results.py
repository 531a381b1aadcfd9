"""What the monitor room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.foundation.config import Result


class ColumnDrift(Result):
    """How far one column's values have moved from the release's hold-out."""

    column: str
    method: str  # Wasserstein distance in standard deviations for numbers, Jensen-Shannon distance for text
    distance: float | None  # None: could not be computed, `note` says why
    allowed: float | None  # above it the column has drifted; larger for few rows, by what chance alone gives
    missing_then: float  # share of empty values in the hold-out
    missing_now: float
    drifted: bool | None
    note: str = ""


class Signal(Result):
    """What monitoring measured of a release in a window. What could not be computed is None or absent, and named."""

    case: str
    release: str  # digest, in full
    as_of: datetime
    start: datetime  # the window: start <= event_timestamp < end
    end: datetime
    task: Literal["classification", "regression", "answers"]
    rows: int  # predictions
    rows_with_outcome: int
    metrics: dict[str, float]  # over rows with an outcome
    reference: dict[str, float]  # the same, over the release's hold-out
    reference_rows: int
    bias: float | None  # mean prediction - mean outcome; regression: as a share of the hold-out's mean |outcome|
    prediction_drift: float | None  # Jensen-Shannon distance of the predictions' distribution from the hold-out's
    prediction_chance: float | None  # what two samples of this size differ by when nothing has changed
    columns: tuple[ColumnDrift, ...]
    drifted_share: float | None  # of the columns that could be compared
    importance: dict[str, float] = Field({})  # of tables: share of each column now, by permutation
    importance_then: dict[str, float] = Field({})  # and on the hold-out
    importance_shift: float | None = None  # sum of the changes, 0 to 2
    proxies: dict[str, float] = Field({})  # of answers: what is measured without outcomes, over all rows
    proxies_then: dict[str, float] = Field({})  # and over the release's evaluation
    told_apart: float | None = None  # of answers: AUC of a classifier between messages now and then; .5: not at all
    told_apart_chance: float | None = None  # by how much chance alone may lift it
    not_computed: tuple[str, ...]  # one sentence each
    inputs: str  # digest over all that this was measured from
    digest: str  # over what was measured: the evidence; the same wherever the state folder lies
    folder: Path  # holds report.html, report.json, signal.json and later decision.json

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


class Decision(Result):
    """What is done about a signal."""

    case: str
    release: str
    as_of: datetime
    action: Literal["ignore", "alert", "retrain"]
    reasons: tuple[str, ...]  # one sentence each, with what was observed and what is allowed
    evidence: str  # the signal's digest
    folder: Path  # holds report.html, report.json, signal.json and decision.json
    digest: str  # over action, reasons and evidence
