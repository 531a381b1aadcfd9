"""Prefect tasks of the predict package."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import stage
from tasks.data.results import WindowMessages
from tasks.features.results import Frame
from tasks.predict.results import Predictions
from tasks.release.results import Release


@stage("predict", lambda p: f"{p.rows:,} rows, {p.written:,} of them new")
def predict_window(release: Release, case: str, frame: Frame, as_of: datetime, out: Path) -> Predictions:
    """Predict the frame with the release; existing predictions stay."""
    from tasks.predict.tabular import Predictor, predict

    return predict(Predictor(release.digest, case, release.model, release.columns), frame, as_of, out)


@stage("answer", lambda p: f"{p.rows:,} messages, {p.written:,} of them new")
def answer_window(release: Release, messages: WindowMessages, as_of: datetime, out: Path, threads: int) -> Predictions:
    """Answer the messages with the release; existing answers stay."""
    from tasks.predict.language import answer

    return answer(release, messages, as_of, out, threads)
