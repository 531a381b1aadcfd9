"""Promise: a local secret is created once, readable by its owner alone, and the same for every process."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tasks.core.local_secrets import local_secret, read_secret, secret_file

READ = (
    "import sys; from pathlib import Path; from tasks.core.local_secrets import local_secret;"
    "print(local_secret(Path(sys.argv[1]), 'x'))"
)


def test_a_secret_is_created_once_for_its_owner(tmp_path):
    assert read_secret(tmp_path, "x") is None
    secret = local_secret(tmp_path, "x")
    assert len(secret) == 43
    assert local_secret(tmp_path, "x") == read_secret(tmp_path, "x") == secret
    assert secret_file(tmp_path, "x").stat().st_mode & 0o777 == 0o600
    assert secret_file(tmp_path, "x").parent.stat().st_mode & 0o777 == 0o700
    assert local_secret(tmp_path, "y") != secret


def test_processes_that_start_together_share_it(tmp_path):
    def read(_: int) -> str:
        return subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(read, range(8)))) == 1
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["x"]
