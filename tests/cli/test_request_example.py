"""The request at the end of `driftline run` works as it is printed (kind of row 40)."""

from __future__ import annotations

import json
import shlex
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli import request_example
from cli.request_example import example_row, print_request, request_line
from services.serving.schema import make_schema
from services.store.database import Store
from services.store.keys import create_key
from tasks.core.settings import Settings
from tasks.release.registry import read_release
from tasks.release.seal import read_manifest

pytestmark = pytest.mark.xdist_group("bento")


def test_the_row_is_one_of_the_hold_out(folder: Path) -> None:
    """What a request carries, and the join keys of what is looked up, as the release's own types take it."""
    row = example_row(folder)
    assert list(row) == ["carrier", "distance", "tail_age", "origin"]
    golden = json.loads((folder / "golden.json").read_text())
    scored = pq.read_table(folder / "scores.parquet").to_pylist()[0]
    assert {name: scored[name] for name in row} == row
    make_schema(read_manifest(folder), golden).request.model_validate({"rows": [row]})


def test_the_line_has_a_key_where_one_is_needed(folder: Path, tmp_path: Path) -> None:
    """None on this machine before the first key exists; then the operator's."""
    config = Settings(state=tmp_path, gateway_port=8765)
    line = shlex.split(request_line(read_release(folder, ""), config))
    assert line[:4] == ["curl", "-s", "http://127.0.0.1:8765/v1/predict/small", "-d"]
    assert json.loads(line[4]) == {"rows": [example_row(folder)]}
    with closing(Store(config)) as store:
        create_key(store, "web", ["predict"], rpm=None, tpm=None, budget=None)
    line = shlex.split(request_line(read_release(folder, ""), config))
    assert line[3:5] == ["-H", f"Authorization: Bearer $(cat {tmp_path / 'secrets' / 'operator'})"]


def test_a_long_row_goes_into_a_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the line stays short enough to read."""
    monkeypatch.setattr(request_example, "LONGEST", 20)
    line = shlex.split(request_line(read_release(folder, ""), Settings(state=tmp_path)))
    assert line[-1] == f"@{tmp_path / 'requests' / 'small.json'}"
    assert json.loads((tmp_path / "requests" / "small.json").read_text()) == {"rows": [example_row(folder)]}


def test_a_stack_that_is_down_comes_first(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(request_example, "settings", lambda: Settings(state=tmp_path))
    print_request(read_release(folder, ""))
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert printed[-2] == "driftline up"
    assert printed[-1].startswith("curl -s http://127.0.0.1:")
