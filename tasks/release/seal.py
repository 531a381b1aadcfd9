"""The sealed manifest: all parts of a release, under one digest that can be recomputed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError, GateFailed
from tasks.core.files import atomic_path, file_digest, write_text
from tasks.data.snapshots import pointer
from tasks.evaluate.results import Criterion, Verdict
from tasks.evaluate.verdicts import EVIDENCE, PAIRED
from tasks.release.results import SealContext
from tasks.train.results import Candidate

MANIFEST = "manifest.json"
SCORES = "scores.parquet"
GOLDEN = "golden.json"
SELFTEST = "selftest.json"
EMBEDDER = "embedder"  # folder of the model for /v1/embeddings
LINEAGE = ("commit", "dirty", "lock_digest", "case_digest")


@dataclass(frozen=True)
class ReleaseParts:
    """The parts of a release that depend on the kind of its case."""

    kind: Literal["tabular", "llm"]
    sealed: dict[str, Any]  # part of the digest
    golden: list[dict[str, Any]]  # scored examples; a server of the release must give equal answers
    files: dict[str, Path | str]  # by their names in the release's folder: a file to copy, or text to write
    packages: tuple[str, ...]  # their versions are recorded


def seal(candidate: Candidate, verdict: Verdict, parts: ReleaseParts, context: SealContext) -> Path:
    """Write `<state>/releases/<case>/<digest12>/` and return it; equal inputs give an equal digest and folder.

    Raises: GateFailed when the verdict is not to promote.
    """
    lineage, files = context.lineage, {**parts.files, **context.guard.files()}
    files |= {SELFTEST: context.selftest} if context.selftest else {}
    if verdict.decision != "promote":
        raise GateFailed(
            f"The candidate of {candidate.case} is not released.",
            found=f"verdict: {verdict.decision}",
            allowed="verdict: promote",
            todo="See the verdict's criteria; change the case, or wait for more data.",
        )
    if missing := [name for name in LINEAGE if not lineage.get(name)]:
        raise DriftlineError(
            "The release can't be sealed: its lineage is incomplete.", found=f"no {', '.join(missing)}"
        )
    sealed = {
        "format": 1,
        "case": candidate.case,
        "kind": parts.kind,
        "as_of": candidate.as_of.astimezone(UTC).isoformat(),
        "commit": lineage["commit"],
        "dirty": lineage["dirty"] == "true",
        "lock": lineage["lock_digest"],
        "config": lineage["case_digest"],
        "data": candidate.data_digest,
        "definitions": candidate.definitions_digest,
        "weights": candidate.weights_digest,
        "imported": candidate.imported,
        **parts.sealed,
        "price": context.price.model_dump(),
        "verdict": {
            "decision": verdict.decision,
            "champion": verdict.champion,
            "digest": verdict.digest,
            "criteria": [_repeatable(criterion) for criterion in verdict.criteria],
        },
        "files": {
            **{name: _content_digest(content) for name, content in sorted(files.items())},
            **{name: file_digest(path) for name, path in _evidence(verdict).items()},
            GOLDEN: digest_of(parts.golden),
        },
    }
    digest = digest_of(sealed)
    folder = release_folder(context.state, candidate.case, digest)
    if not folder.exists():
        recorded = {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": candidate.run_id,
            "versions": {name: version(name) for name in parts.packages},
            "rows": {"train": candidate.train_rows, "holdout": candidate.holdout_rows},
            "data": verdict.data,
            "metrics": verdict.metrics,
            "observed": {c.name: {"value": c.observed, "note": c.note} for c in verdict.criteria},
            "timings": context.timings,
            "lineage": {name: value for name, value in sorted(lineage.items()) if name not in LINEAGE},
            "snapshot": pointer(context.snapshot.path) if context.snapshot else "",
        }
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            for name, content in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, temporary / name)
                else:
                    write_text(temporary / name, content)
            for name, path in _evidence(verdict).items():
                shutil.copyfile(path, temporary / name)
            if (importance := candidate.folder / "importance.json").is_file():
                shutil.copyfile(importance, temporary / importance.name)
            write_text(temporary / GOLDEN, json.dumps(parts.golden, indent=1, ensure_ascii=False))
            manifest = {"digest": digest, "sealed": sealed, "recorded": recorded}
            write_text(temporary / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False))
    verify(folder)
    return folder


def release_folder(state: Path, case: str, digest: str) -> Path:
    return state / "releases" / case / digest[:12]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a release's manifest.

    Raises: DriftlineError when there is none, or it is not JSON.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DriftlineError(
            "The release's manifest can't be read.", where=str(folder / MANIFEST), found=str(error)
        ) from error
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Recompute and compare every digest of a release, and return its manifest.

    Raises: DriftlineError naming the first file or part that differs by a byte.
    """
    manifest = read_manifest(folder)
    sealed = manifest["sealed"]
    if (found := digest_of(sealed)) != manifest["digest"] or not found.startswith(folder.name):
        raise digest_mismatch(folder / MANIFEST, found, manifest["digest"])
    for name, expected in sealed["files"].items():
        path = folder / name
        if not path.is_file():
            raise digest_mismatch(path, "no such file", expected)
        found = digest_of(json.loads(path.read_bytes())) if name == GOLDEN else file_digest(path)
        if found != expected:
            raise digest_mismatch(path, found, expected)
    return manifest


def digest_mismatch(path: Path, found: str, expected: str) -> DriftlineError:
    return DriftlineError(
        "The release differs from what was sealed: a digest does not match.",
        where=str(path),
        found=found,
        allowed=expected,
        todo="Don't serve it. Delete its folder and run the release again, or restore the files from a copy.",
    )


def _evidence(verdict: Verdict) -> dict[str, Path]:
    """The files that the verdict is computed from, by their names in the release's folder."""
    beside = {name: verdict.scores.with_name(name) for name in (EVIDENCE, PAIRED)}
    return {SCORES: verdict.scores, **{name: path for name, path in beside.items() if path.is_file()}}


def _content_digest(content: Path | str) -> str:
    return file_digest(content) if isinstance(content, Path) else hashlib.sha256(content.encode()).hexdigest()


def _repeatable(criterion: Criterion) -> dict[str, Any]:
    """A criterion as it is sealed; a measured time differs between runs and is only recorded."""
    part = {"name": criterion.name, "required": criterion.required, "passed": criterion.passed}
    part |= {"waiver": criterion.waiver} if criterion.waiver else {}
    part |= {} if criterion.blocking else {"blocking": False}
    return {**part, "observed": criterion.observed} if criterion.repeatable else part
