"""Releases trained once for the whole room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.monitor.small import CLASSIFICATION, REGRESSION, make_release


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("classification") / "release", CLASSIFICATION)


@pytest.fixture(scope="session")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("regression") / "release", REGRESSION)
