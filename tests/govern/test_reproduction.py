"""Promise: a rebuilt release is compared part by part, and what differs is named."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cli.reproduce import sealed_code
from tasks.core.errors import InputError
from tasks.core.lineage import read_lineage
from tasks.core.settings import ROOT, Settings
from tasks.govern.reproduction import ADAPTER, adapter_distance, compare_releases


def manifest(weights: str = "a", decision: str = "promote", **metrics: float) -> dict[str, Any]:
    sealed = {"case": "shop", "weights": weights, "data": "d.dir", "files": {"scores.parquet": weights}}
    sealed |= {"verdict": {"decision": decision, "digest": weights}}
    return {"digest": weights * 64, "sealed": sealed, "recorded": {"metrics": {"overall": {"auc": 0.8, **metrics}}}}


def write_adapter(folder: Path, shift: float) -> Path:
    path = folder / ADAPTER
    path.parent.mkdir(parents=True)
    save_file({"lora": np.ones((4, 8), np.float32) + np.float32(shift)}, path)
    return folder


def test_an_equal_release_is_the_same(tmp_path):
    found = compare_releases(tmp_path, tmp_path, (manifest(), manifest()))
    assert (found.outcome, found.differing) == ("same", [])


def test_other_code_is_named_but_no_difference(tmp_path):
    """What `--this-code` compares."""
    other = manifest()
    other["sealed"] |= {"commit": "b", "dirty": True}
    found = compare_releases(tmp_path, tmp_path, (manifest(), other))
    assert (found.outcome, found.differing) == ("other code", [])


def test_a_table_needs_equal_bytes(tmp_path):
    """Also where the metrics are near."""
    found = compare_releases(tmp_path, tmp_path, (manifest(), manifest("b", auc=0.801)))
    assert found.outcome == "different"
    assert found.differing == ["weights", "files", "verdict", "auc"]


@pytest.mark.parametrize(
    ("shift", "auc", "decision", "outcome"),
    [
        (0.001, 0.81, "promote", "within tolerance"),
        (0.1, 0.80, "promote", "different"),
        (0.001, 0.70, "promote", "different"),
        (0.001, 0.80, "reject", "different"),
    ],
)
def test_an_adapter_needs_near_tensors_and_metrics(tmp_path, shift, auc, decision, outcome):
    before, after = write_adapter(tmp_path / "a", 0), write_adapter(tmp_path / "b", shift)
    found = compare_releases(before, after, (manifest(), manifest("b", decision, auc=auc)))
    assert found.outcome == outcome
    assert adapter_distance(before / ADAPTER, after / ADAPTER) == pytest.approx(shift, rel=1e-3)


def test_an_adapter_without_its_file_is_infinitely_far(tmp_path):
    before = write_adapter(tmp_path / "a", 0) / ADAPTER
    assert adapter_distance(before, tmp_path / ADAPTER) == float("inf")


def test_code_that_no_commit_has_is_refused(tmp_path):
    """Uncommitted changes, a commit that is not there, and one from before the command."""
    lineage, config = read_lineage(ROOT), Settings(state=tmp_path)
    first = subprocess.run(
        ["git", "rev-list", "--max-parents=0", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    for commit, dirty, message in (
        (lineage.commit, True, "uncommitted changes"),
        ("0" * 40, False, "not in this repository"),
        (first, False, "older than driftline reproduce"),
    ):
        with pytest.raises(InputError, match=message):
            sealed_code({"commit": commit, "dirty": dirty}, config)
