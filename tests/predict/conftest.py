"""A model trained once for all tests of the package."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.predict.small import train_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_model(tmp_path_factory.mktemp("model") / "model.skops")


@pytest.fixture
def as_of() -> datetime:
    return datetime(2013, 4, 1, tzinfo=UTC)
