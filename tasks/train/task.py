"""Prefect tasks of the train room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.data.config import Talk
from tasks.data.results import Base, Snapshot
from tasks.features.results import Frame
from tasks.foundation.task import stage
from tasks.foundation.tracking import Tracking
from tasks.train.config import Serving, Target, Train, Tuning
from tasks.train.results import Candidate


@stage("train a candidate", lambda c: f"{c.train_rows:,} rows, weights {c.weights_digest[:12]}")
def train_candidate(
    case: str,
    as_of: datetime,
    frame: Frame,
    target: Target,
    config: Train,
    state: Path,
    lineage: dict[str, str],
    tracking: Tracking,
) -> Candidate:
    """Fit, save and log a candidate."""
    from tasks.train.tabular import train

    return train(case, as_of, frame, target, config, state, lineage, tracking)


@stage("import a candidate", lambda c: f"weights {c.weights_digest[:12]}", cache=False)
def import_table_model(
    case: str,
    as_of: datetime,
    path: Path,
    frame: Frame,
    target: Target,
    config: Train,
    trusted: tuple[str, ...],
    state: Path,
    lineage: dict[str, str],
    tracking: Tracking,
) -> Candidate:
    """Check a scikit-learn model made elsewhere, save and log it."""
    from tasks.train.imported import import_model

    return import_model(case, as_of, path, frame, target, config, trusted, state, lineage, tracking)


@stage("import a candidate", lambda c: f"weights {c.weights_digest[:12]}", cache=False)
def import_language_adapter(
    case: str,
    as_of: datetime,
    path: Path,
    snapshot: Snapshot,
    base: Base,
    talk: Talk,
    serving: Serving,
    threads: int,
    state: Path,
    lineage: dict[str, str],
    tracking: Tracking,
) -> Candidate:
    """Check an adapter made elsewhere, merge, save and log it."""
    from tasks.train.imported_adapter import import_adapter

    pairs = snapshot.path / "pairs"
    return import_adapter(
        case, as_of, path, pairs, snapshot.digest, base, talk, serving, threads, state, lineage, tracking
    )


@stage("tune a candidate", lambda c: f"{c.train_rows:,} pairs, weights {c.weights_digest[:12]}")
def tune_candidate(
    case: str,
    as_of: datetime,
    snapshot: Snapshot,
    base: Base,
    talk: Talk,
    tuning: Tuning,
    serving: Serving,
    state: Path,
    lineage: dict[str, str],
    tracking: Tracking,
) -> Candidate:
    """Tune an adapter in the case's stages, merge, save and log it."""
    from tasks.train.tune import tune

    pairs = snapshot.path / "pairs"
    return tune(case, as_of, pairs, snapshot.digest, base, talk, tuning, serving, state, lineage, tracking)
