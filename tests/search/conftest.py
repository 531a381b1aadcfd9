"""The small table of most tests of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.features.results import Frame
from tests.search.tables import small_frame


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return small_frame(tmp_path)
