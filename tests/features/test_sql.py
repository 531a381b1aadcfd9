"""What this room stands on: a quick import of Feast, and writing that a full disk can't leave half done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasks.core.duckdb import connect
from tasks.core.errors import Unavailable
from tasks.features.sql import dump_yaml

LIGHT = """
import sys
from tasks.features.feast_import import import_feast
import_feast()
import typeguard, feast.torch_wrapper
from feast.infra.offline_stores.offline_store import RetrievalJob
assert "torch" not in sys.modules
assert typeguard.typechecked.__module__.startswith("typeguard")
assert feast.torch_wrapper.get_torch().__name__ == "torch"
"""


def test_feast_is_imported_without_torch():
    """Torch costs seconds at import and is there when it is asked for; typeguard is as before for everybody else."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    """DuckDB's error becomes the one that says what to do; no file, whole or half, is left."""
    with pytest.raises(Unavailable, match="disk is full"), dump_yaml(tmp_path / "x.parquet"), connect() as connection:
        connection.execute("COPY (FROM range(1000000)) TO '/dev/full' (FORMAT parquet)")
    assert not list(tmp_path.iterdir())
