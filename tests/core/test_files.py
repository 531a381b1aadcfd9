"""Files that are whole or not there, and locks that die with their process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.config import digest_of
from tasks.core.errors import Busy, DataError, DriftlineError, GateFailed, Unavailable
from tasks.core.files import atomic_path, lock, temporary_folder, write_text
from tasks.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path):
    """A file is replaced whole or not at all, and no temporary file stays."""
    path = write_text(tmp_path / "kept.txt", "old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_raises_unavailable(tmp_path):
    """Writing to a device without space says so, says where, and leaves nothing behind."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")

    def fill():
        with atomic_path(tmp_path / "x") as temporary:
            temporary.symlink_to(full)
            temporary.write_bytes(b"x" * 100_000)

    with pytest.raises(Unavailable, match="disk is full"):
        fill()
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="denied"), atomic_path(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "denied")


def test_a_lock_is_refused_while_held_and_free_after_kill_9(tmp_path):
    """Two runs of one case: the second is told who holds it; a killed holder holds nothing."""
    code = (
        "import sys, time; from pathlib import Path; from tasks.core.files import lock\n"
        "with lock(Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=str(holder.pid)), lock(path, "Case x"):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with lock(path, "Case x"):
                return
        except Busy:
            time.sleep(0.05)
    pytest.fail("the lock outlived its process")


def test_equal_values_have_one_digest_and_nan_is_refused():
    """Digests count values, not the order of keys; a value that JSON can't hold is an error."""
    assert digest_of({"a": 1, "b": 2.5}) == digest_of({"b": 2.5, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("nan"))


def test_errors_say_all_five_things_and_their_exit_codes_differ():
    """What, where, found, allowed, what to do; and a script can tell a failed gate from wrong input."""
    text = str(DataError("what", where="here", found="this", allowed="that", todo="this"))
    assert [line.split(":")[0].strip() for line in text.splitlines()] == ["what", "where", "found", "allowed", "do"]
    assert {DriftlineError.exit_code, DataError.exit_code, GateFailed.exit_code, Busy.exit_code} == {1, 2, 3, 4}


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    """DRIFTLINE_* variables move each part elsewhere."""
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_PREFECT_PORT", "4999")
    settings = Settings()
    assert settings.state == tmp_path
    assert settings.prefect_api == "http://127.0.0.1:4999/api"
    assert str(tmp_path) in settings.mlflow_uri


HOLD = """
import sys, time
from tasks.core.files import temporary_folder
with temporary_folder("test") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    """A temporary folder goes with its block; one of a process that was killed goes when the next one is created."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    left = Path(holder.stdout.readline().strip())
    with temporary_folder("test") as own:
        assert left.is_dir()  # its process lives
        assert Path(own).stat().st_mode & 0o777 == 0o700
    assert not Path(own).exists()
    holder.kill()
    holder.communicate()
    assert left.is_dir()
    with temporary_folder("test"):
        assert not left.exists()
