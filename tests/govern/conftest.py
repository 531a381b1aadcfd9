from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose MLflow tables, which take seconds to make, the tests share."""
    folder = tmp_path_factory.getbasetemp() / "governed-state"
    folder.mkdir(exist_ok=True)
    return folder
