"""What a user gets wrong, or a machine: a clear message, the right exit code, and the champion stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.small import change_case, make_case, write_source
from tests.end_to_end.terminal import Done, World, cold


@pytest.fixture
def own(tmp_path, world) -> World:
    """The world with the champion, but with a case folder of this test's own."""
    shutil.copytree(world.cases, tmp_path / "cases")
    return World(world.folder, tmp_path / "cases")


@pytest.fixture
def unharmed(world):
    """Whatever the test did: the champion is the same, its release whole, and nothing lies about half-written."""
    snapshots = world.state / "store" / "snapshots" / "diabetes"
    before = world.champion("diabetes"), sorted(snapshots.iterdir())
    yield
    assert (world.champion("diabetes"), sorted(snapshots.iterdir())) == before
    assert half_written(world) == []


def half_written(world: World) -> list[Path]:
    """Temporary files and folders that a run left behind."""
    places = [path for folder in (world.state, world.data) for path in folder.rglob(".*")]
    return [p for p in places if p.name.startswith(".scratch-") or (p.name.endswith(".tmp") and p.name.startswith("."))]


def refused(done: Done, *says: str, code: int = 2) -> None:
    assert "Traceback" not in done.output, done.output
    assert done.code == code, done.output
    for part in says:
        assert part in done.output, done.output


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run diabets", ["no case 'diabets'", "Did you mean diabetes"]),
        ("run diabetes --profile smok", ["no profile 'smok'", "none declared"]),
        ("run diabetes --as-of 2999-01-01", ["lies in the future", "2999-01-01", "up to now"]),
        ("run diabetes --as-of soon", ["not a date", "soon", "2013-04-01"]),
        ("show diabetes --release abcdef", ["abcdef", "No release"]),
    ],
)
def test_a_wrong_command_is_an_error(world, terminal, command, says):
    """Unknown case, profile or release, a future as-of, no date at all."""
    refused(terminal.run(world, command), *says)


def test_each_verb_before_there_is_a_champion(tmp_path, terminal):
    """Nothing to show, to predict with or to pin yet: the message names the command that makes it."""
    empty = World(tmp_path, tmp_path / "cases")
    make_case(empty.cases)
    for verb in ("show", "predict", "pin"):
        refused(terminal.run(empty, f"{verb} diabetes"), "no champion yet", "driftline run diabetes")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train__famly": "x"}, ["train.famly: unknown key", "family"]),
        ({"train__seed": "one"}, ["train.seed", "'one'", "integer"]),
        ({"evaluate__ms_per_row": -1}, ["evaluate.ms_per_row", "greater than 0"]),
        ({"train__family": "sklearn.linear_model.Rigde"}, ["Rigde"]),
        ({"train__parameters": {"alhpa": 1}}, ["alhpa", "alpha"]),
        ({"features__examples": "SELECT at AS event_timestamp FORM patients"}, ["features.examples", "syntax error"]),
    ],
)
def test_a_wrong_case_is_an_error(own, terminal, unharmed, changes, says):
    """Unknown key, wrong type, out of bounds, no such estimator or argument, no SQL; before anything runs."""
    change_case(own.cases / "diabetes", **changes)
    refused(terminal.run(own, "validate diabetes"), *says)
    done = terminal.run(own, "run diabetes")
    refused(done, *says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="patient"), ["patient", "key"]),
        (lambda f: f.drop(columns="bmi"), ["bmi"]),
        (lambda f: f.head(0), ["empty", "0 rows"]),
        (lambda f: f.assign(progression=9999), ["progression", "442"]),
        (lambda f: f.assign(bmi="high"), ["bmi", "DOUBLE", "VARCHAR"]),
        (lambda f: f.assign(patient=1), ["patient", "unique"]),
    ],
    ids=["no key column", "no column", "empty", "all bad", "type change", "duplicate keys"],
)
def test_bad_data_is_an_error(own, terminal, unharmed, change, says):
    """A source without a column, empty, all bad, of another type, with duplicate keys: nothing is changed."""
    write_source(own.cases / "diabetes", change)
    refused(terminal.run(own, "run diabetes"), "patients", *says)


def test_a_missing_source_is_an_error(own, terminal, unharmed):
    """The message names the file that is not there and those that are."""
    (own.cases / "diabetes" / "patients.csv").rename(own.cases / "diabetes" / "patient.csv")
    refused(terminal.run(own, "run diabetes"), "missing", "patients.csv", "patient.csv")


def test_a_source_that_is_no_table_is_an_error(own, unharmed):
    """A Parquet file that is none, told by a process from nothing: our message is the last thing it says."""
    (own.cases / "diabetes" / "patients.parquet").write_bytes(b"PAR1 not really")
    change_case(own.cases / "diabetes", data__sources__patients__uri="file://patients.parquet")
    done = cold(own, "run diabetes")
    refused(done, "patients.parquet can't be read", "a whole Parquet file")
    assert "leaked" not in done.output  # what DuckDB says at the exit of a process that keeps an error


def test_an_as_of_before_the_data_is_an_error(own, terminal, unharmed):
    """The message says from when on there is data."""

    def dated(frame):
        return frame.assign(seen="2003-01-05T00:00:00Z")

    write_source(own.cases / "diabetes", dated)
    change_case(own.cases / "diabetes", data__sources__patients__time="seen")
    refused(terminal.run(own, "run diabetes --as-of 1999-01-01"), "no data yet", "1999-01-01", "2003-01-05")


def test_few_bad_rows_go_to_quarantine_with_their_reasons(tmp_path, terminal):
    """Up to the case's tolerance bad rows are put aside, each with its reason, and the run goes on without them."""
    import duckdb

    mine = World(tmp_path, tmp_path / "cases")
    folder = make_case(mine.cases)

    def spoil(frame):
        frame.loc[:2, "progression"] = 9999
        return frame

    write_source(folder, spoil)
    done = terminal.run(mine, "prepare diabetes")
    assert done.code == 0, done.output
    assert "439 rows" in done.figure("validate patients")
    assert "3 quarantined" in done.figure("validate patients")
    (file,) = (mine.state / "quarantine").rglob("*.parquet")
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{file}')").df()
    assert len(rows) == 3
    assert rows.astype(str).apply(lambda row: "progression" in " ".join(row), axis=1).all()


def test_two_runs_of_a_case_at_once(world, terminal):
    """The second ends with exit code 4 and names the process that holds the case; the first is not disturbed."""
    first = terminal.start(world, "train diabetes --as-of 2005-01-01")  # a new as-of: nothing comes from cache
    assert first.wait_for(1)
    os.kill(first.pid, signal.SIGSTOP)  # it holds the case as long as the second one tries
    try:
        refused(terminal.run(world, "run diabetes"), "busy", str(first.pid), code=4)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    done = first.wait()
    assert done.code == 0, done.output


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left", [0, 60_000, 700_000], ids=lambda left: f"{left} bytes left")
def test_a_full_disk_leaves_no_partial_files(tmp_path, small_disk, terminal, left):
    """Whatever could not be written: a clear message; and with space again the same command goes through."""
    mine = World(small_disk, tmp_path / "cases")
    make_case(mine.cases)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(free - left))
    done = terminal.run(mine, "prepare diabetes")
    refused(done, "space", code=5)
    assert half_written(mine) == []
    filler.unlink()
    done = terminal.run(mine, "prepare diabetes")
    assert done.code == 0, done.output
