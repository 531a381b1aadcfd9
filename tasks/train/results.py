"""What the train room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.features.results import Column
from tasks.foundation.config import Result


class Candidate(Result):
    """A trained model with its MLflow run."""

    case: str
    as_of: datetime
    run_id: str
    folder: Path  # content-addressed; holds model.skops and importance.json
    weights_digest: str  # SHA-256 of model.skops; equal for equal inputs and seed
    frame: Path  # the frame it was trained on; tasks.train.split tells its hold-out
    data_digest: str
    definitions_digest: str
    columns: tuple[Column, ...]
    train_rows: int
    holdout_rows: int
