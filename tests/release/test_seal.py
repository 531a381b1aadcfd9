from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.errors import DriftlineError, GateFailed
from tasks.core.settings import ROOT
from tasks.release.seal import read_manifest, verify
from tasks.train.results import Candidate
from tests.release.small import LINEAGE, make_verdict, seal_table

pytestmark = pytest.mark.xdist_group("bento")


def test_equal_inputs_give_an_equal_digest(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """A re-run, elsewhere and with other timings, ends in the same release."""
    slower = make_verdict(candidate, ms_per_row=0.5)
    again = seal_table(candidate, slower, LINEAGE, tmp_path, timings={"train": 3.0})
    assert again.name == folder.name
    assert read_manifest(again)["sealed"] == read_manifest(folder)["sealed"]
    assert read_manifest(again)["recorded"] != read_manifest(folder)["recorded"]


@pytest.mark.parametrize("part", ["commit", "dirty", "lock_digest", "case_digest"])
def test_any_other_input_gives_another_digest(candidate: Candidate, folder: Path, tmp_path: Path, part: str) -> None:
    """Code, tree, lock and case are all part of what a release is."""
    lineage = {**LINEAGE, part: "true" if part == "dirty" else "9" * 40}
    assert seal_table(candidate, make_verdict(candidate), lineage, tmp_path).name != folder.name


def test_only_a_verdict_to_promote_is_sealed(candidate: Candidate, tmp_path: Path) -> None:
    """Gates fail closed: what was not promoted does not become a release."""
    verdict = make_verdict(candidate, decision="insufficient evidence")
    with pytest.raises(GateFailed, match="insufficient evidence"):
        seal_table(candidate, verdict, LINEAGE, tmp_path)
    assert not (tmp_path / "releases").exists()


def test_lineage_must_be_whole(candidate: Candidate, tmp_path: Path) -> None:
    with pytest.raises(DriftlineError, match="no commit"):
        seal_table(candidate, make_verdict(candidate), {**LINEAGE, "commit": ""}, tmp_path)


@pytest.mark.parametrize("name", ["model.skops", "golden.json", "scores.parquet", "manifest.json"])
def test_a_changed_byte_is_found(folder: Path, tmp_path: Path, name: str) -> None:
    """verify computes every digest again and names the file that differs."""
    copy = shutil.copytree(folder, tmp_path / folder.name)
    path = copy / name
    text = path.read_bytes()
    changed = text.replace(b'"prediction": 0.', b'"prediction": 1.', 1) if name == "golden.json" else b""
    if name == "manifest.json":
        changed = text.replace(b'"distance"', b'"disdance"', 1)
    path.write_bytes(changed or text[:-1] + bytes([text[-1] ^ 1]))
    with pytest.raises(DriftlineError, match=name):
        verify(copy)
    path.unlink()
    with pytest.raises(DriftlineError, match=name):
        verify(copy)


def test_a_killed_sealing_leaves_nothing_and_ends_alike(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """kill -9 between the files of a release: no release is there, and the next attempt makes the same one."""
    code = f"""
import os, shutil, signal
from pathlib import Path
import tasks.release.seal as seal
from tasks.train.results import Candidate
from tests.release.small import LINEAGE, make_verdict, seal_table
shutil.copyfile = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
candidate = Candidate.model_validate_json({candidate.model_dump_json()!r})
seal_table(candidate, make_verdict(candidate), LINEAGE, Path({str(tmp_path)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert not list(tmp_path.glob("releases/small/[0-9a-f]*"))
    again = seal_table(candidate, make_verdict(candidate), LINEAGE, tmp_path)
    assert again.name == folder.name


def test_no_secret_reaches_a_manifest(candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment is written, whatever it is called."""
    monkeypatch.setenv("DRIFTLINE_TRACKING_URL", "http://user:hunter2@mlflow")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    folder = seal_table(candidate, make_verdict(candidate), LINEAGE, tmp_path)
    text = (folder / "manifest.json").read_text()
    assert "hunter2" not in text
    assert json.loads(text)["sealed"]["data"] == "abc.dir"
