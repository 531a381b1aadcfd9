"""Snapshots in DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.core.errors import DataError, Unavailable
from tasks.data.results import TimeWindow, ValidatedBatches, Validation
from tasks.data.snapshots import check_snapshot, content_digest, pin, pointer, restore_snapshot, store_snapshot

AS_OF = datetime(2020, 1, 1, tzinfo=UTC)


def store(root: Path, content: bytes = b"rows", remote: str | None = None):
    batch = root / f"batch-{len(content)}"
    batch.write_bytes(content)
    validation = Validation(
        source="events", rows=1, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
    )
    validated = ValidatedBatches(
        source="events", files={"2020-01": batch}, rows=1, quarantined=0, validation=validation
    )
    return store_snapshot("toy", AS_OF, [validated], store=root / "store", remote=remote or str(root / "remote"))


def test_a_pinned_snapshot_comes_back_by_dvc_pull(tmp_path):
    """A pointer in another repository restores the same snapshot from the remote, with DVC's own command."""
    snapshot = store(tmp_path)
    other = tmp_path / "other"
    pinned = pin("toy", pointer(snapshot.path), other / "data")
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["init", "--no-scm", "-q"],
        ["remote", "add", "-d", "r", str(tmp_path / "remote")],
        ["pull", str(pinned)],
    ):
        subprocess.run([*dvc, *command], cwd=other, env=env, check=True, capture_output=True)
    assert (other / "data/snapshots/toy/events/2020-01.parquet").read_bytes() == b"rows"


def test_a_snapshot_is_restored_from_the_remote_alone(tmp_path):
    """By the text of its pointer, into an empty store; data that the remote lost is named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "rows.parquet")
    snapshot = store(tmp_path, (tmp_path / "rows.parquet").read_bytes())
    text, remote = pointer(snapshot.path), str(tmp_path / "remote")
    restored = restore_snapshot("toy", AS_OF, text, store=tmp_path / "new" / "store", remote=remote)
    assert (restored.digest, restored.rows) == (snapshot.digest, {"events": 3})
    assert content_digest(restored.path) == snapshot.digest
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(Unavailable, match="can't be pulled"):
        restore_snapshot("toy", AS_OF, text, store=tmp_path / "other" / "store", remote=remote)
    with pytest.raises(DataError, match="no snapshot pointer"):
        restore_snapshot("toy", AS_OF, "", store=tmp_path / "new" / "store", remote=remote)


def test_equal_data_has_one_hash_and_other_data_another(tmp_path):
    """The digest is DVC's content hash."""
    first, again, other = store(tmp_path), store(tmp_path), store(tmp_path, b"other rows")
    assert first == again
    assert first.digest.endswith(".dir")
    assert first.digest != other.digest


def test_an_unreachable_remote_is_an_error(tmp_path):
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


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "lost", "added"])
def test_a_damaged_snapshot_is_noticed_and_stored_anew(damage, tmp_path):
    """Before anything is made of it, wherever the damage is; what was delivered brings it back under its digest."""
    snapshot = store(tmp_path, b"many rows of data")
    check_snapshot(snapshot)
    assert content_digest(snapshot.path) == snapshot.digest
    path = snapshot.path / "events" / "2020-01.parquet"
    content = path.read_bytes()
    changed = {
        "flipped": content[:3] + bytes([content[3] ^ 1]) + content[4:],
        "cut": content[:-1],
        "longer": content + b"x",
    }
    for each in (path, *(tmp_path / "store" / ".dvc" / "cache").rglob("*")):  # a file and its cached twin
        if each.is_file() and each.read_bytes() == content:
            each.unlink()
            if damage in changed:
                each.write_bytes(changed[damage])
            elif damage == "added":
                each.write_bytes(content)
    if damage == "added":
        path.with_name("2020-02.parquet").write_bytes(b"more")
    with pytest.raises(DataError, match="has changed since it was stored"):
        check_snapshot(snapshot)
    (tmp_path / "batch-17").unlink(missing_ok=True)
    again = store(tmp_path, b"many rows of data")
    assert again == snapshot
    check_snapshot(again)


def test_every_candidate_needs_a_checked_snapshot(tmp_path):
    """Each task that reads a snapshot to make a frame, an online store or a candidate looks first."""
    from tasks.features import task as features
    from tasks.train import task as train

    snapshot = store(tmp_path)
    (snapshot.path / "events" / "2020-01.parquet").unlink()
    for call in (
        lambda: features.training_frame(None, snapshot, tmp_path),
        lambda: features.window_frame(None, snapshot, tmp_path, TimeWindow(start=AS_OF, end=AS_OF)),
        lambda: features.fill_online_store(None, snapshot, tmp_path, ""),
        lambda: train.tune_candidate(None, snapshot, None, None),
        lambda: train.import_language_adapter(None, tmp_path, snapshot, None, 1),
    ):
        with pytest.raises(DataError, match="has changed since it was stored"):
            call()
