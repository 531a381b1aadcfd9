"""Promise: a report folder is complete, and its script finds every change without Driftline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pypdf import PdfReader

from services.store.audit import chain_entries, record_audit_event
from services.store.audit_verify import chain_head
from services.store.database import Store
from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError, InputError
from tasks.core.files import file_digest
from tasks.core.settings import Settings
from tasks.govern.evidence import Evidence
from tasks.govern.report_folder import ChainEntry, Sources, write_folder
from tasks.govern.sbom import check_sbom, locked_packages, sbom
from tasks.release.signature import sign_release
from tests.govern.test_card import evidence_of

KEY = b64encode(b"k" * 32).decode()


def release_of(folder: Path) -> Evidence:
    """A sealed release with scores, and its evidence."""
    folder.mkdir(parents=True)
    scores = pd.DataFrame({"late": [0, 1] * 50, "prediction": [0.2, 0.7] * 50})
    scores.to_parquet(folder / "scores.parquet")
    (folder / "golden.json").write_text("[ ]")
    manifest = dict(evidence_of().manifest)
    files = {"scores.parquet": file_digest(folder / "scores.parquet"), "golden.json": digest_of([])}
    manifest["sealed"] = {**manifest["sealed"], "files": files, "lock": "1" * 64}
    manifest["digest"] = digest_of(manifest["sealed"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return evidence_of(manifest=manifest)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Evidence]:
    """A folder with everything: a snapshot, a lock, a signature, and records of two cases."""
    home = tmp_path_factory.mktemp("report")
    evidence = release_of(home / "release")
    sign_release(home / "release", evidence.digest, KEY)
    (home / "snapshot" / "orders").mkdir(parents=True)
    pq.write_table(pa.table({"id": [1], "price": [2.5]}), home / "snapshot" / "orders" / "all.parquet")
    store = Store(Settings(state=home))
    with store.writing() as connection:
        for case in ("shop", "secret", "shop"):
            record_audit_event(connection, "share.set", "s" * 64, case=case, reason="a reason")
    chain = [ChainEntry(i, digest, text if case == "shop" else None) for i, case, digest, text in chain_entries(store)]
    assert chain[-1].digest == chain_head(store).digest
    store.close()
    sources = Sources(home / "release", home / "snapshot", "numpy==2.0 \\\n    --hash=sha256:aa\n", chain)
    write_folder("eu-ai-act", evidence, sources, home / "out")
    return home, evidence


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """By Python alone: no site packages, no folder of ours."""
    command = [sys.executable, "-I", "-S", str(folder / "check.py"), *options]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_the_script_verifies_everything_by_python_alone(written):
    home, evidence = written
    public = json.loads((home / "out" / "signature.json").read_text())["public_key"]
    done = check(home / "out", "--release", str(home / "release"), "--key", public)
    assert done.returncode == 0, done.stdout + done.stderr
    assert evidence.digest in done.stdout
    assert "3 audit records are in order, 2 of them with their text" in done.stdout
    assert "2 files of the release are as they were sealed" in done.stdout
    assert "a reason" in (home / "out" / "audit.jsonl").read_text()
    assert "secret" not in (home / "out" / "audit.jsonl").read_text()


def in_contents(folder: Path, name: str) -> None:
    """Write the digest of a changed file anew, as a forger would."""
    contents = json.loads((folder / "contents.json").read_text())
    contents["files"][name] = file_digest(folder / name)
    (folder / "contents.json").write_text(json.dumps(contents))


def change_text(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    in_contents(folder, name)


def drop_record(folder: Path) -> None:
    lines = (folder / "audit.jsonl").read_text().splitlines(keepends=True)
    (folder / "audit.jsonl").write_text("".join([lines[0], *lines[2:]]))
    in_contents(folder, "audit.jsonl")


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda out: (out / "report.md").write_text("fine"), "report.md: the file was changed"),
        (lambda out: (out / "sbom.json").unlink(), "sbom.json: the file is gone"),
        (lambda out: (out / "more.txt").write_text("x"), "more.txt: not of this report"),
        (lambda out: change_text(out, "manifest.json", '"promote"', '"reject"'), "the sealed part was changed"),
        (lambda out: change_text(out, "audit.jsonl", "a reason", "no reason"), "record 1 was edited"),
        (drop_record, "record 2 is gone"),
        (lambda out: change_text(out, "signature.json", '"signature": "', '"signature": "AAAA'), "does not match"),
        (lambda out: (out / "contents.json").write_text("{"), "WRONG"),
    ],
)
def test_the_script_names_each_change(written, tmp_path, tamper, found):
    out = Path(shutil.copytree(written[0] / "out", tmp_path / "out"))
    tamper(out)
    done = check(out)
    assert done.returncode == 1, done.stdout
    assert found in done.stdout
    assert "Traceback" not in done.stderr


def test_the_script_refuses_another_key_and_release(written, tmp_path):
    out, release = written[0] / "out", Path(shutil.copytree(written[0] / "release", tmp_path / "release"))
    assert "signed by another key" in check(out, "--key", "AAAA").stdout
    (release / "golden.json").write_text("[1]")
    done = check(out, "--release", str(release))
    assert done.returncode == 1
    assert "golden.json: the file was changed" in done.stdout


def test_the_pages_hold_plots_and_the_words_of_the_report(written):
    """HTML that opens no other file; a PDF whose text a reader finds."""
    out = written[0] / "out"
    page = (out / "model-card.html").read_text()
    assert page.count("<figure") == 3
    assert not re.search(r'(?:src|href)="http', page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert "Article 43" in (out / "report.html").read_text()
    for name, words in (("report.pdf", "Conformity assessment"), ("model-card.pdf", "Worst slices by auc")):
        text = "".join(each.extract_text() for each in PdfReader(out / name).pages)
        assert words in " ".join(text.split())


def test_the_data_card_has_the_vocabulary_of_croissant(written):
    """Each file with its digest, each column with its type and its origin."""
    card = json.loads((written[0] / "out" / "data-card.json").read_text())
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert card["@context"]["recordSet"] == "cr:recordSet"
    (file,), (records,) = card["distribution"], card["recordSet"]
    assert file["sha256"] == file_digest(written[0] / "snapshot" / "orders" / "all.parquet")
    assert [(each["name"], each["dataType"]) for each in records["field"]] == [
        ("id", "sc:Integer"),
        ("price", "sc:Float"),
    ]
    assert all(each["source"]["fileObject"]["@id"] == file["@id"] for each in records["field"])


def test_the_bill_of_materials_is_valid_cyclonedx(written):
    """With the model card, the data and every package of the lock; a broken one is refused."""
    document: dict[str, Any] = json.loads((written[0] / "out" / "sbom.json").read_text())
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert {"type": "auc", "value": "0.8"} in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [each["type"] for each in document["components"]] == ["data", "library"]
    with pytest.raises(DriftlineError, match="does not match CycloneDX"):
        check_sbom(json.dumps(document | {"bomFormat": "other"}))
    assert sbom(written[1], None) == sbom(written[1], None)
    assert "the sealed lock is not at hand" in sbom(written[1], None)


def test_each_package_of_the_lock_is_a_component():
    text = "a-b==1.0 ; python_version < '3.12' \\\n    --hash=sha256:aa\nc[extra]==2.1\n# x==3\n"
    assert [each["purl"] for each in locked_packages(text)] == ["pkg:pypi/a-b@1.0", "pkg:pypi/c@2.1"]


def test_a_folder_with_files_in_it_is_refused(written, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        write_folder("eu-ai-act", written[1], Sources(written[0], None, None, ()), tmp_path)
