"""Where a row of a case is: every file of the platform that has it, and what it is part of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.config import Result
from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.files import file_digest
from tasks.core.settings import Settings
from tasks.release.seal import MANIFEST
from tasks.train.results import Candidate

# of the state folder, with a folder for each case
CACHES = (
    *("batches", "quarantine", "features", "baselines", "verdicts", "candidates", "knowledge", "tuning", "practice"),
    *("monitor", "traffic", "docs", "replay", "reproduce", "searches", "mlflow"),
)
UNNAMED = ("baselines", "knowledge", "docs", "tuning", "practice")  # they repeat rows without their keys
RELEASES = ("releases", "bentoml/bentos")
KEYLESS = ("example_id",)  # how derived files name a row
Part = Literal["data", "snapshot", "features", "training set", "model", "index", "cache", "prediction", "release"]
PARTS: dict[str, Part] = {"batches": "data", "quarantine": "data", "features": "features", "candidates": "model"}
PARTS |= {"knowledge": "index"}


@dataclass(frozen=True)
class Row:
    """A row of a case by its key."""

    case: str
    columns: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def named(self) -> dict[str, str]:
        return dict(zip(self.columns, self.values, strict=True))


class Finding(Result):
    """One file or folder that has the row, or was made from data with it."""

    part: Part
    path: Path
    reason: str  # has the row, or was made from data with it


def find_row(row: Row, config: Settings, snapshots: tuple[str, ...]) -> list[Finding]:
    """All files with the row; `snapshots` are digests that are known to have had it."""
    state = config.state
    examples = example_ids(row, state)
    found = [Finding(part="data", path=path, reason="has the row") for path in _raw(row, config, examples)]
    stored = list(_snapshots(row, state))
    found += [Finding(part="snapshot", path=path, reason="has the row") for path, _ in stored]
    digests = {*snapshots, *(digest for _, digest in stored)}
    found += _frames(row, state, examples, digests)
    found += _cached(row, state, examples, digests)
    predictions = config.data / "predictions" / row.case
    found += [
        Finding(part="prediction", path=path, reason="has the row")
        for path in sorted(predictions.rglob("*.parquet"))
        if has_row(path, row, examples)
    ]
    found += _releases(row, state, examples, digests)
    return found + _logged_models(row.case, state, found)


def affected_snapshots(row: Row, state: Path) -> tuple[str, ...]:
    """The digests of the stored snapshots that have the row."""
    return tuple(sorted(digest for _, digest in _snapshots(row, state)))


def has_row(path: Path, row: Row, examples: frozenset[str]) -> bool:
    """Whether a Parquet file has the row by its key, or by the id of an example made from it."""
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    if set(row.columns) <= names:
        wanted = row.named
        where = " AND ".join(f"{quote_identifier(name)}::VARCHAR = ?" for name in wanted)
        values = list(wanted.values())
    elif examples and set(KEYLESS) <= names:
        where, values = f"example_id::VARCHAR IN ({', '.join('?' * len(examples))})", sorted(examples)
    else:
        return False
    with connect() as db:
        return db.execute(f"SELECT 1 FROM {scan_parquet(path)} WHERE {where} LIMIT 1", values).fetchone() is not None


def example_ids(row: Row, state: Path) -> frozenset[str]:
    """The ids of the examples that were made from the row; by default the key itself."""
    found = {row.values[0]} if len(row.values) == 1 else set()
    for path in (state / "features" / row.case).glob("*/examples.parquet"):
        import pyarrow.parquet as pq

        if set(row.columns) <= set(pq.read_schema(path).names):
            where = " AND ".join(f"{quote_identifier(name)}::VARCHAR = ?" for name in row.columns)
            with connect() as db:
                query = f"SELECT DISTINCT example_id::VARCHAR FROM {scan_parquet(path)} WHERE {where}"
                found |= {each for (each,) in db.execute(query, list(row.values)).fetchall()}
    return frozenset(found)


def _raw(row: Row, config: Settings, examples: frozenset[str]) -> Iterator[Path]:
    folder = config.data / "raw" / row.case
    yield from (path for path in sorted(folder.rglob("*.parquet")) if has_row(path, row, examples))


def _snapshots(row: Row, state: Path) -> Iterator[tuple[Path, str]]:
    """Folders and digests."""
    import yaml

    for pointer in sorted((state / "store" / "snapshots" / row.case).glob("*.dvc")):
        folder = pointer.with_suffix("")
        if any(has_row(path, row, frozenset()) for path in sorted(folder.rglob("*.parquet"))):
            yield folder, str(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])


def _frames(row: Row, state: Path, examples: frozenset[str], digests: set[str]) -> list[Finding]:
    """Frames lie together for all cases: those of this one name its snapshots."""
    found = []
    for summary in sorted((state / "frames").glob("*.json")):
        frame = summary.with_suffix(".parquet")
        if json.loads(summary.read_text(encoding="utf-8")).get("data_digest") in digests and frame.is_file():
            reason = "has the row" if has_row(frame, row, examples) else "was made from data with it"
            found.append(Finding(part="training set", path=frame, reason=reason))
    return found


def _cached(row: Row, state: Path, examples: frozenset[str], digests: set[str]) -> list[Finding]:
    """Entries of the case's caches: each is a folder or a file that a run makes again."""
    found = []
    for name in CACHES:
        folder = state / name / row.case
        for entry in sorted(each for each in folder.glob("*") if not each.name.startswith((".", "online-"))):
            if any(has_row(path, row, examples) for path in _parquet(entry)):
                found.append(Finding(part=PARTS.get(name, "cache"), path=entry, reason="has the row"))
            elif digests and (name in UNNAMED or _derives_from(entry, digests)):
                found.append(Finding(part=PARTS.get(name, "cache"), path=entry, reason="was made from data with it"))
    return found


def _parquet(entry: Path) -> list[Path]:
    return sorted(entry.rglob("*.parquet")) if entry.is_dir() else [entry] if entry.suffix == ".parquet" else []


def _derives_from(entry: Path, digests: set[str]) -> bool:
    """Whether a candidate was trained on one of these snapshots."""
    path = entry / "candidate.json"
    return path.is_file() and Candidate.model_validate_json(path.read_bytes()).data_digest in digests


def _releases(row: Row, state: Path, examples: frozenset[str], digests: set[str]) -> list[Finding]:
    found = []
    for place in RELEASES:
        for folder in sorted((state / place / row.case).glob("[0-9a-f]*")):
            manifests = [path for path in (folder / MANIFEST, folder / "src" / MANIFEST) if path.is_file()]
            data = json.loads(manifests[0].read_text(encoding="utf-8"))["sealed"]["data"] if manifests else ""
            if any(has_row(path, row, examples) for path in _parquet(folder)):
                found.append(Finding(part="release", path=folder, reason="has the row"))
            elif data in digests:
                found.append(Finding(part="release", path=folder, reason="was made from data with it"))
    return found


def _logged_models(case: str, state: Path, found: list[Finding]) -> list[Finding]:
    """Copies in MLflow of the tabular models among the findings."""
    models = [path for each in found for path in (each.path / "model.skops",) if path.is_file()]
    weights = {file_digest(path) for path in models}
    logged = sorted((state / "mlflow" / case / "models").glob("*/artifacts/model.skops")) if weights else []
    return [
        Finding(part="model", path=path.parents[1], reason="was made from data with it")
        for path in logged
        if file_digest(path) in weights
    ]


def remove_finding(finding: Finding) -> None:
    """Delete a file or folder with what belongs to it; one that is gone already is no error."""
    path = finding.path
    ends = (".dvc", ".pushed", ".md") if finding.part == "snapshot" else ()
    beside = [path.with_name(path.name + end) for end in ends]
    beside += [path.with_suffix(".json")] if finding.part == "training set" else []
    for each in (path, *beside):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def mentions(value: Any, row: Row, examples: frozenset[str]) -> bool:
    """Whether JSON names the row anywhere: an object with its key, or with the id of its example."""
    if isinstance(value, dict):
        if all(str(value.get(name)) == wanted for name, wanted in row.named.items()):
            return True
        if str(value.get("example_id", "")) in examples:
            return True
        return any(mentions(each, row, examples) for each in value.values())
    return isinstance(value, list) and any(mentions(each, row, examples) for each in value)
