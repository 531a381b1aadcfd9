"""What the release package takes and hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field

from tasks.core.config import Result
from tasks.data.results import Snapshot
from tasks.features.results import Column
from tasks.guard.files import GuardSpec
from tasks.knowledge.answers.answerer import INDEX
from tasks.language.open_engine import model_file
from tasks.language.upstream import UPSTREAM
from tasks.release.config import Price


class SealContext(Result):
    """What every release records of its run: lineage, state folder, price and data."""

    lineage: dict[str, str]  # commit, dirty ("true" or "false"), lock_digest, case_digest and more
    state: Path
    price: Price = Price()
    snapshot: Snapshot | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    guard: GuardSpec = GuardSpec()
    selftest: str = ""  # what the gates made of known-bad candidates; empty: they were not tested
    missing: tuple[str, ...] = ("",)  # words that stand for a missing value in the case's sources


class Release(Result):
    """A promoted candidate, sealed. Its folder holds manifest.json, the model and the scored hold-out."""

    case: str
    digest: str  # SHA-256 over the manifest's sealed part, hex
    as_of: datetime
    folder: Path
    bento: str  # tag, CASE:DIGEST12
    version: str  # of the registered MLflow model
    run_id: str
    kind: str
    columns: tuple[Column, ...]  # the columns of a tabular model, in its order

    @property
    def is_remote(self) -> bool:
        """Whether its model is behind an address."""
        return (self.folder / UPSTREAM).is_file()

    @property
    def has_documents(self) -> bool:
        """Whether it answers from documents."""
        return (self.folder / INDEX).is_dir()

    @property
    def model(self) -> Path:
        return model_file(self.folder) if self.kind == "llm" else self.folder / "model.skops"
