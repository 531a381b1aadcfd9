"""Prefect tasks of the feature stage."""

from __future__ import annotations

from pathlib import Path

from tasks.core.prefect import stage
from tasks.data.results import Snapshot, TimeWindow
from tasks.features.config import Features, FrameSpec
from tasks.features.results import Frame


def _frame_size(frame: Frame) -> str:
    return f"{frame.rows:,} rows x {len(frame.columns)} features"


@stage("build training features", _frame_size)
def training_frame(spec: FrameSpec, snapshot: Snapshot, state: Path) -> Frame:
    """All examples of the snapshot whose outcome is known, with their point-in-time features."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.training_frame import build_frame

    check_snapshot(snapshot)
    return build_frame(spec, snapshot, state)


@stage("build features {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}", _frame_size)
def window_frame(spec: FrameSpec, snapshot: Snapshot, state: Path, window: TimeWindow) -> Frame:
    """The examples of a time window, with the outcomes that are known."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.training_frame import build_frame

    check_snapshot(snapshot)
    return build_frame(spec, snapshot, state, window=window, known_only=False)


@stage("fill the online store", lambda path: "nothing to look up" if path is None else path.name)
def fill_online_store(features: Features, snapshot: Snapshot, state: Path, online_store: str) -> Path | None:
    """Write the newest values of each view to the online store; None for a case without views."""
    from tasks.data.snapshots import check_snapshot
    from tasks.features.online import materialise

    check_snapshot(snapshot)
    return materialise(features, snapshot, state, online_store) if features.views else None
