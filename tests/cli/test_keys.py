"""Promise: labels of keys are set, shown and refused in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from services.store.database import Store
from services.store.keys import list_keys
from tasks.core.errors import InputError
from tasks.core.settings import settings


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def keys(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    if result.exception:
        raise result.exception
    return result.output


def labels() -> list[list[str]]:
    with closing(Store(settings())) as store:
        return [row["labels"] for row in list_keys(store)]


def test_a_key_gets_labels_and_loses_them():
    keys("create", "--team", "hr", "--labels", "hr, board")
    assert labels() == [["board", "hr"]]
    assert "labels" in keys("list")
    with closing(Store(settings())) as store:
        (row,) = list_keys(store)
    keys("labels", row["id"], "")
    assert labels() == [[]]


def test_an_invalid_label_creates_no_key():
    with pytest.raises(InputError, match="label is not valid"):
        keys("create", "--team", "hr", "--labels", "hr,*")
    assert labels() == []
