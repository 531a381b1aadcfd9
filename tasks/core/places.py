"""Where the stages of a run read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.core.mlflow import Tracking


@dataclass(frozen=True)
class Places:
    """The state folder, MLflow, and the data folder."""

    state: Path
    tracking: Tracking
    data: Path

    @classmethod
    def in_folder(cls, state: Path) -> Places:
        """All of them under one folder."""
        return cls(state, Tracking.in_folder(state), state / "data")

    @property
    def predictions(self) -> Path:
        return self.data / "predictions"
