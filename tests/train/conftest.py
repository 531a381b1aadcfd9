from __future__ import annotations

from pathlib import Path

import pytest

from tasks.train.language import throughput as pace


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose MLflow tables, which take seconds to make, the train and evaluate tests share."""
    folder = tmp_path_factory.getbasetemp() / "judged-state"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer is tried twice in place of a second: no test needs the exact minutes of a tuning."""
    monkeypatch.setattr(pace, "SECONDS", 0.0)
