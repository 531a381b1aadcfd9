"""What the release room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.config import Result
from tasks.features.results import Column


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
    columns: tuple[Column, ...]  # what a tabular model takes, in its order

    @property
    def model(self) -> Path:
        return self.folder / ("model.gguf" if self.kind == "llm" else "model.skops")
