"""A report as a folder: pages, PDF, cards, bill of materials, audit records, and a script that checks all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import atomic_path, file_digest, write_text
from tasks.govern import check_folder
from tasks.govern.card import model_card
from tasks.govern.data_card import data_card
from tasks.govern.evidence import Evidence
from tasks.govern.frameworks import FRAMEWORKS, Framework, report
from tasks.govern.pages import markdown_page, markdown_pdf
from tasks.govern.plots import card_plots
from tasks.govern.sbom import sbom
from tasks.release.seal import MANIFEST
from tasks.release.signature import SIGNATURE

CONTENTS = "contents.json"
LOCK = "requirements.lock"


@dataclass(frozen=True)
class ChainEntry:
    """One audit record as it goes out: of another case, without its text."""

    id: int
    digest: str
    record: str | None


@dataclass(frozen=True)
class Sources:
    """What a report folder is written from, besides the evidence."""

    release: Path  # the release's folder
    snapshot: Path | None  # None: the folder of the snapshot is gone
    lock: str | None  # text of the sealed lock file; None: not at hand
    chain: Iterable[ChainEntry]


def write_folder(framework: Framework, evidence: Evidence, sources: Sources, out: Path) -> str:
    """Write the folder, which must not exist or be empty, and return the digest of its table of contents.

    Raises: InputError when there is something in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            "The folder of the report is not empty.", where=str(out), todo="Name a new folder, or remove this one."
        )
    if out.is_dir():
        out.rmdir()
    title = f"{evidence.case}: {FRAMEWORKS[framework][0]}"
    text, card = report(framework, evidence), model_card(evidence)
    with atomic_path(out) as folder:
        folder.mkdir(parents=True)
        write_text(folder / "report.md", text)
        write_text(folder / "report.html", markdown_page(title, text))
        (folder / "report.pdf").write_bytes(markdown_pdf(text))
        write_text(folder / "model-card.md", card)
        name = f"{evidence.case} {evidence.digest[:12]}"
        write_text(folder / "model-card.html", markdown_page(name, card, card_plots(evidence, sources.release)))
        (folder / "model-card.pdf").write_bytes(markdown_pdf(card))
        write_text(folder / "data-card.json", data_card(evidence, sources.snapshot))
        write_text(folder / "sbom.json", sbom(evidence, sources.lock))
        if sources.lock is not None:
            write_text(folder / LOCK, sources.lock)
        for file in (MANIFEST, SIGNATURE):
            if (sources.release / file).is_file():
                shutil.copyfile(sources.release / file, folder / file)
        with (folder / "audit.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(
                json.dumps({"id": each.id, "digest": each.digest, "record": each.record}) + "\n"
                for each in sources.chain
            )
        shutil.copyfile(str(check_folder.__file__), folder / "check.py")
        files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        contents = {"framework": framework, "release": evidence.digest, "files": files}
        write_text(folder / CONTENTS, json.dumps(contents, indent=1) + "\n")
    return file_digest(out / CONTENTS)
