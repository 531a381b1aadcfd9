"""What the monitor room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from tasks.core.config import Result

Action: TypeAlias = Literal["ignore", "alert", "recalibrate", "retrain", "rollback"]


class ColumnDrift(Result):
    """How far one column's values have moved from the release's hold-out."""

    column: str
    method: str  # Wasserstein distance in standard deviations for numbers, Jensen-Shannon distance for text
    distance: float | None  # None: could not be computed, `note` says why
    chance: float | None  # p-value, of the values or of how many are empty, adjusted for all that is watched
    missing_then: float  # share of empty values in the hold-out
    missing_now: float
    drifted: bool | None  # no chance, and far enough to matter
    note: str = ""


class Part(Result):
    """How a part of the window did by what retrains."""

    start: datetime
    end: datetime
    rows: int  # with an outcome
    value: float | None  # of the watched metric
    expected: float | None  # of it, by the scores of these rows
    bias: float | None


class Predecessor(Result):
    """The champion before, on the same rows of this window: its mean loss less the champion's, and bounds of it."""

    release: str  # digest, in full
    rows: int
    loss: str
    difference: float
    low: float
    high: float
    better: bool  # beyond doubt, and by the margin of the champion gate


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
    bias_then: float | None = None  # and on the hold-out
    bias_class: str | int | None = None  # of three classes or more, the one whose predicted share is furthest off
    expected: dict[str, float] = Field({})  # of rows with an outcome, by their scores: what harmless drift explains
    parts: tuple[Part, ...] = Field(())  # of the window, of equal length
    estimated: dict[str, float] = Field({})  # expected of rows without an outcome, if scores mean what they meant
    estimated_rows: int = 0
    predecessor: Predecessor | None = None  # None: there is none, or it can't be compared
    prediction_drift: float | None  # Jensen-Shannon distance of the predictions' distribution from the hold-out's
    chances: dict[str, float] = Field({})  # adjusted p-values of what is watched, but for columns, which tell their own
    columns: tuple[ColumnDrift, ...]
    drifted_share: float | None  # of the columns that could be compared
    importance: dict[str, float] = Field({})  # of tables: share of each column now, by permutation
    importance_then: dict[str, float] = Field({})  # and on the hold-out
    importance_shift: float | None = None  # sum of the changes, 0 to 2
    proxies: dict[str, float] = Field({})  # of answers: what is measured without outcomes, over all rows
    proxies_then: dict[str, float] = Field({})  # and over the release's evaluation
    told_apart: float | None = None  # of answers: AUC of a classifier between messages now and then; .5: not at all
    not_computed: tuple[str, ...]  # one sentence each
    inputs: str  # digest over all that this was measured from
    evidence: str  # digest over the release and its rows with an outcome: what a retraining would rest on
    digest: str  # over what was measured; the same wherever the state folder lies
    folder: Path  # holds report.html, report.json, signal.json and later decision.json

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


class Decision(Result):
    """What is done about a signal."""

    case: str
    release: str
    as_of: datetime
    action: Action
    reasons: tuple[str, ...]  # one sentence each, with what was observed and what is allowed
    evidence: str  # of the signal
    to: str = ""  # digest of the release that is rolled back to
    folder: Path  # holds report.html, report.json, signal.json and decision.json
    digest: str  # over action, reasons and evidence


class Attempt(Result):
    """A decision that was acted on, and what came of it."""

    decision: Decision
    outcome: Literal["begun", "released", "rejected", "failed"]  # begun: it runs, or was killed
    release: str = ""  # digest of what was released
