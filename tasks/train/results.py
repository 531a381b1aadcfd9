"""What the train room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.config import Result
from tasks.core.mlflow import Tracking
from tasks.features.results import Column


class Origin(Result):
    """For what, as of when and by which code a candidate is made, and where it is kept."""

    case: str
    as_of: datetime
    lineage: dict[str, str]
    state: Path
    tracking: Tracking


class Candidate(Result):
    """A trained model with its MLflow run."""

    case: str
    as_of: datetime
    run_id: str
    folder: Path  # content-addressed; holds model.skops and importance.json, or model.gguf and adapter/
    weights_digest: str  # SHA-256 of model.skops, or over adapter and base; equal for equal inputs and seed
    frame: Path  # what it was trained on: a frame, whose hold-out tasks.train.tabular.split tells; or a folder of pairs
    data_digest: str
    definitions_digest: str
    columns: tuple[Column, ...]
    train_rows: int  # that it learned from here
    holdout_rows: int
    imported: str | None = None  # SHA-256 of what was brought from outside; None: trained here
