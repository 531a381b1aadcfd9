"""Promise: DuckDB spills into a private folder and nowhere else, and names of any kind stay names in SQL."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.duckdb import SPILL_VARIABLE, connect, quote_identifier, quote_literal, quote_path, scan_parquet
from tasks.core.settings import ROOT

SORT = """
import sys
from pathlib import Path
from tasks.core.duckdb import connect
state, work = map(Path, sys.argv[1:])
with connect(memory="40MB", threads=1) as db:
    db.execute("CREATE TABLE t AS SELECT random() r, md5(range::VARCHAR) m FROM range(1500000)")
    spilled = [path for path in state.rglob("*") if path.is_file()]
    assert spilled, "the test spills nothing"
    assert not list(work.rglob("*")), list(work.rglob("*"))
    assert db.execute("SELECT count(*) FROM (FROM t ORDER BY m, r)").fetchall() == [(1500000,)]
"""
ASK = """
import os
from tasks.core.duckdb import connect
((folder,),) = connect().sql("SELECT current_setting('temp_directory')").fetchall()
print(folder, oct(os.stat(os.path.dirname(folder)).st_mode))
"""
ODD = [
    'a"b',
    "it's",
    "a[b]",
    "a*b?",
    "new\nline",
    "é ü 日本",
    "k=v",
    "{a,b}",
    "back\\slash",
    "; DROP TABLE x; --",
    "SELECT",
    " ",
]


def test_what_does_not_fit_into_memory_lies_in_the_state_folder(tmp_path: Path) -> None:
    """It is gone afterwards; nothing is in the current folder or the system's temporary one."""
    state, work = tmp_path / "state" / "scratch", tmp_path / "work"
    work.mkdir()
    places = {SPILL_VARIABLE: str(state), "TMPDIR": str(work), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SORT, state, work], cwd=work, env={**os.environ, **places}, check=True)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert not list(state.iterdir())
    assert not list(work.iterdir())


def test_without_an_entry_point_it_is_a_private_folder_of_the_process(tmp_path: Path) -> None:
    """As in a script that uses our packages; another user can't read it, and can't have made it before."""
    places = {SPILL_VARIABLE: "", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command, environment = [sys.executable, "-c", ASK], {**os.environ, **places}
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    folders = [done.stdout.split()[0] for done in runs]
    assert {done.stdout.split()[1] for done in runs} == {"0o40700"}
    assert all(Path(folder).is_relative_to(tmp_path) for folder in folders)
    assert len({Path(folder).parent for folder in folders}) == 2
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a living one stays."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"duckdb-{pid}-77").mkdir()
        (tmp_path / f"duckdb-{pid}-77" / "rows.tmp").write_text("somebody's rows")
    monkeypatch.setenv(SPILL_VARIABLE, str(tmp_path))
    connect().close()
    assert [path.name for path in tmp_path.iterdir()] == [f"duckdb-{os.getpid()}-77"]


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_files_and_folders_of_any_name_are_read(tmp_path: Path, name: str) -> None:
    """Alone and with all in their folder; what looks like a pattern is none, and no part of a path is a column."""
    folder = tmp_path / "year=2024" / name
    folder.mkdir(parents=True)
    (tmp_path / "year=2024" / "decoy").mkdir()
    with connect() as db:
        for file, value in (("a.parquet", 1), (f"{name}.parquet", 2), ("b.csv", 3)):
            form = file.rpartition(".")[2]
            select = f"SELECT {value} AS {quote_identifier(name)}"
            db.execute(f"COPY ({select}) TO {quote_literal(folder / file)} (FORMAT {form})")
        of_file = db.sql(f"FROM {scan_parquet(folder / f'{name}.parquet')}")
        assert (of_file.columns, of_file.fetchall()) == ([name], [(2,)])
        for by_name in (False, True):
            of_all = db.sql(f"FROM {scan_parquet(folder, by_name=by_name)} ORDER BY ALL")
            assert (of_all.columns, of_all.fetchall()) == ([name], [(1,), (2,)])
        csv = f"read_csv({quote_path(folder / 'b.csv')}, header = true, hive_partitioning = false)"
        assert db.sql(f"FROM {csv}").fetchall() == [(3,)]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_one_name_and_one_text(text: str) -> None:
    """Whatever stands in it is neither the end of it nor SQL."""
    with connect() as db:
        row = db.sql(f"SELECT {quote_literal(text)} AS {quote_identifier(text)}")
        assert (row.columns, row.fetchall()) == ([text], [(text,)])
