"""Prefect tasks of the features room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import stage
from tasks.data.results import Snapshot
from tasks.features.config import Features
from tasks.features.results import Frame


def _told(frame: Frame) -> str:
    return f"{frame.rows:,} rows x {len(frame.columns)} features"


@stage("build training features", _told)
def training_frame(features: Features, target: str, slices: tuple[str, ...], snapshot: Snapshot, state: Path) -> Frame:
    """All examples of the snapshot whose outcome is known, each with its features as of its own moment."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.training_frame import build_frame

    check_snapshot(snapshot)
    return build_frame(features, target, slices, snapshot, state)


@stage("build features {start:%Y-%m-%d} to {end:%Y-%m-%d}", _told)
def window_frame(
    features: Features,
    target: str,
    slices: tuple[str, ...],
    snapshot: Snapshot,
    state: Path,
    start: datetime,
    end: datetime,
) -> Frame:
    """The examples of a window, with the outcomes that are known."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.training_frame import build_frame

    check_snapshot(snapshot)
    return build_frame(features, target, slices, snapshot, state, start, end, known_only=False)


@stage("fill the online store", lambda path: "nothing to look up" if path is None else path.name)
def fill_online_store(features: Features, snapshot: Snapshot, state: Path, online_store: str) -> Path | None:
    """Put the newest values of each view where a service looks them up; None for a case without views."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.online import materialise

    check_snapshot(snapshot)
    return materialise(features, snapshot, state, online_store) if features.views else None
