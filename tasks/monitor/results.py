"""What monitoring returns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from tasks.core.config import Result

REPORT_PAGE, DRIFT_PAGE, DRIFT_NUMBERS = "report.html", "drift.html", "drift.json"
Action: TypeAlias = Literal["ignore", "alert", "recalibrate", "retrain", "rollback"]


class ColumnDrift(Result):
    """How far one column's values have moved from the release's hold-out."""

    # aliases are the keys of signal.json, which earlier versions wrote
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    column: str
    method: str  # Wasserstein distance in standard deviations for numbers, Jensen-Shannon distance for text
    distance: float | None  # None: could not be computed, for the reason in `note`
    p_value: float | None = Field(alias="chance")  # of values or missing values, adjusted for all that is watched
    missing_then: float  # share of missing values in the hold-out
    missing_now: float
    unseen_then: float | None = None  # share of texts that training never saw; None: the model has no list of them
    unseen_now: float | None = None
    unseen: tuple[str, ...] = Field(())  # the most frequent of these
    drifted: bool | None  # significant, and large enough to matter
    note: str = ""


class Part(Result):
    """A part of the window, measured by what retrains."""

    start: datetime
    end: datetime
    rows: int  # with an outcome
    value: float | None  # of the watched metric
    expected: float | None  # of the watched metric, from the scores of these rows
    bias: float | None


class Predecessor(Result):
    """The previous champion on the same rows of this window: its mean loss minus the champion's, with bounds."""

    release: str  # digest, in full
    rows: int
    loss: str
    difference: float
    low: float
    high: float
    better: bool  # with confidence, and by the margin of the champion gate


class ScoredRows(Result):
    """The rows that a release scored through the gateway, as one Parquet file."""

    path: Path
    unreadable: int  # calls whose rows the log lacks: they are longer than it stores


class LoggedQuestions(Result):
    """The questions that a release with a knowledge base got through the gateway, as one Parquet file.

    Its columns: request_id, requested_at (UTC), request (JSON; empty: not logged), retrieval (JSON), feedback (up,
    down or a score; null without).
    """

    path: Path
    case: str
    release: str  # digest
    start: datetime
    end: datetime


class DatedDocument(Result):
    """A document that states when it was last changed."""

    document: str
    days: int  # since then


class DocumentReview(Result):
    """How the documents of a case differ from those of its release, and how old they are."""

    documents: int  # of the snapshot
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]  # still in the release
    undated: int
    oldest: tuple[DatedDocument, ...]  # the first ones

    @property
    def summary(self) -> str:
        """One sentence."""
        if not (stale := len(self.added) + len(self.changed) + len(self.removed)):
            return "The release has the documents as they are now"
        return f"{stale:,} documents changed since the release was built"


class OpenQuestion(Result):
    """A question with the same words, apart from case and blanks, that got no good answer."""

    question: str
    times: int
    abstained: int  # no passage answers it, or what the model answered stands in none
    disliked: int  # by feedback


class QuestionReview(Result):
    """The questions that a release got through the gateway."""

    case: str
    release: str  # digest
    start: datetime
    end: datetime
    questions: int  # chats and searches
    abstained: int  # answers that are the abstention
    ungrounded: int  # of these: replaced, since what the model stated stands in no passage
    disliked: int
    similarity: float | None  # median of the best passages
    passages: int  # of the index
    unused: int  # of these: in no result
    unused_documents: tuple[str, ...]  # without any passage in a result; the first ones
    open_questions: tuple[OpenQuestion, ...]  # the most frequent first
    documents: DocumentReview
    folder: Path  # with questions.json and questions.md

    @property
    def summary(self) -> str:
        """One line."""
        counts = f"{self.questions:,} questions, {self.abstained:,} without an answer, {self.disliked:,} disliked"
        return f"{counts}. {self.documents.summary}"


class BatchQuality(Result):
    """The quality of one batch of data: a month of a source, or a day of requests."""

    source: str
    batch: str
    rows: int
    quarantined: int = 0
    missing: dict[str, float]  # share of missing values by column, of columns that miss any


class ChangedAnswer(Result):
    """A golden question that a model behind an address answers otherwise than at the release."""

    question: str
    then: str
    now: str


class UpstreamDrift(Result):
    """What a model behind an address shows of a change behind its unchanged name."""

    model: str = ""
    questions: int  # golden ones
    changed: tuple[ChangedAnswer, ...]
    noise: int  # of the questions: answered otherwise when they were asked twice at the release
    p_value: float  # of so many changes, if they were noise
    fingerprints: tuple[str, ...] = Field(())  # that were not seen before the release
    facts: tuple[str, ...] = Field(())  # names of what the server states otherwise in its list of models


class Disparity(Result):
    """What a fairness gate of the case says of the groups of a window."""

    name: str
    required: str
    outcome: Literal["within", "beyond", "not shown"]
    note: str


class Signal(Result):
    """What monitoring measured of a release in a window. What could not be computed is None or absent, and listed."""

    # aliases are the keys of signal.json, which earlier versions wrote
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

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
    # 95 % of resamples of these rows lie between; not of metrics that could not be computed
    intervals: dict[str, tuple[float, float]] = Field({})
    reference_intervals: dict[str, tuple[float, float]] = Field({})
    bias: float | None  # mean prediction - mean outcome; regression: as a share of the hold-out's mean |outcome|
    bias_then: float | None = None  # and on the hold-out
    bias_class: str | int | None = None  # of three classes or more, the one with the largest bias
    expected: dict[str, float] = Field({})  # of rows with an outcome, from their scores: what harmless drift explains
    parts: tuple[Part, ...] = Field(())  # of the window, of equal length
    estimated: dict[str, float] = Field({})  # expected of rows without an outcome, if scores mean what they meant
    estimated_rows: int = 0
    predecessor: Predecessor | None = None  # None: there is none, or it can't be compared
    prediction_drift: float | None  # Jensen-Shannon distance of the predictions' distribution from the hold-out's
    prediction_note: str = ""  # why it could not be computed
    p_values: dict[str, float] = Field({}, alias="chances")  # adjusted, of all that is watched except columns
    columns: tuple[ColumnDrift, ...]
    origins: dict[str, int] = Field({})  # rows by where they were scored, of a table without time
    quality: tuple[BatchQuality, ...] = Field(())  # oldest batch of a source first
    drifted_share: float | None  # of the columns that could be compared
    importance: dict[str, float] = Field({})  # of tables: share of each column now, by permutation
    importance_then: dict[str, float] = Field({})  # and on the hold-out
    importance_shift: float | None = None  # sum of the changes, 0 to 2
    reference_free: dict[str, float] = Field({}, alias="proxies")  # of answers: metrics without outcomes, all rows
    reference_free_then: dict[str, float] = Field({}, alias="proxies_then")  # and over the release's evaluation
    # of answers: AUC of a classifier between the messages of window and evaluation; .5: they are alike
    message_auc: float | None = Field(None, alias="told_apart")
    upstream: UpstreamDrift | None = None  # of answers: None for a local model
    groups: dict[str, Any] = Field({})  # of tables: rates with intervals by sensitive columns and group
    disparities: tuple[Disparity, ...] = Field(())  # and the fairness gates of the case
    not_computed: tuple[str, ...]  # one sentence each
    inputs: str  # digest over all inputs of the measurement
    evidence: str  # digest over the release and its rows with an outcome: the evidence for a retraining
    digest: str  # over the measurements; it does not depend on the state folder
    folder: Path  # holds drift.html and drift.json of Evidently, signal.json; later decision.json and report.html

    @property
    def drift_report(self) -> Path:
        """Evidently's page."""
        return self.folder / DRIFT_PAGE


class Decision(Result):
    """The reaction to a signal."""

    case: str
    release: str
    as_of: datetime
    action: Action
    reasons: tuple[str, ...]  # one sentence each, with what was observed and what is allowed
    evidence: str  # of the signal
    to: str = ""  # digest of the release that is rolled back to
    folder: Path  # holds report.html, signal.json and decision.json
    digest: str  # over action, reasons and evidence

    @property
    def report(self) -> Path:
        """The page for a person."""
        return self.folder / REPORT_PAGE


Outcome = Literal["begun", "released", "rejected", "undecided", "failed"]  # begun: it runs, or was killed


class Attempt(Result):
    """An executed decision and its outcome."""

    decision: Decision
    outcome: Outcome
    release: str = ""  # digest of what was released
