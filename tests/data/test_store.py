"""Snapshots in DVC."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.data.store import pin, pointer, store_snapshot
from tasks.foundation.errors import DataError, Unavailable

AS_OF = datetime(2020, 1, 1, tzinfo=UTC)


def store(root: Path, content: bytes = b"rows", remote: str | None = None):
    batch = root / f"batch-{len(content)}"
    batch.write_bytes(content)
    return store_snapshot(
        "toy",
        AS_OF,
        {"events": {"2020-01": batch}},
        {"events": 1},
        {},
        {},
        root / "store",
        remote or str(root / "remote"),
    )


def test_a_pinned_snapshot_comes_back_by_dvc_pull(tmp_path):
    """A pointer carried elsewhere brings the very snapshot back from the remote, with DVC's own command."""
    snapshot = store(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    pinned = pin("toy", pointer(snapshot.path), elsewhere / "data")
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["init", "--no-scm", "-q"],
        ["remote", "add", "-d", "r", str(tmp_path / "remote")],
        ["pull", str(pinned)],
    ):
        subprocess.run([*dvc, *command], cwd=elsewhere, env=env, check=True, capture_output=True)
    assert (elsewhere / "data/snapshots/toy/events/2020-01.parquet").read_bytes() == b"rows"


def test_equal_data_has_one_hash_and_other_data_another(tmp_path):
    """The digest is DVC's content hash."""
    first, again, other = store(tmp_path), store(tmp_path), store(tmp_path, b"other rows")
    assert first == again
    assert first.digest.endswith(".dir")
    assert first.digest != other.digest


def test_a_remote_that_does_not_answer_is_told(tmp_path):
    """A snapshot that can't be pushed is no success; the next run pushes it."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the remote's folder should be")
    with pytest.raises(Unavailable, match="could not be pushed"):
        store(tmp_path, remote=str(blocked / "remote"))
    assert store(tmp_path).digest.endswith(".dir")


def test_a_pin_needs_a_pointer(tmp_path):
    """Text that is no DVC pointer is refused before anything is written."""
    with pytest.raises(DataError, match="no snapshot pointer"):
        pin("toy", "{}", tmp_path)
    assert not list(tmp_path.iterdir())
