"""A backup of a running stack, restored elsewhere: the same champion, answers, ledger, and the monitor goes on."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.runtime.backup import restore
from tasks.core.errors import DataError, InputError
from tasks.core.settings import Settings
from tests.conftest import ROOT
from tests.end_to_end.terminal import Terminal, World
from tests.waiting import wait_for

CASE = "diabetes"


@pytest.fixture(scope="module")
def world(stack: World, terminal: Terminal) -> World:
    """The stack with a champion and a decision; beside test_stack.py with all that happened there."""
    done = terminal.run(stack, f"run {CASE}", f"monitor {CASE} --as-of 2004-02-10")
    assert done.code == 0, done.output
    return stack


@dataclass
class Saved:
    archive: Path
    before: set[str]  # calls that were answered before it was begun; others went on until it was there
    secret: str  # a key of the gateway


@pytest.fixture(scope="module")
def saved(world, terminal, tmp_path_factory) -> Saved:
    """A backup under calls."""
    output = terminal.run(world, "keys create --team home --role predict --budget 100").output
    secret = next(word for word in output.split() if word.startswith("dl-"))
    # until the gateway knows its first key, it serves this machine without one: nobody is charged
    charged = "SELECT 1 FROM usage_records WHERE team = 'home'"
    assert wait_for(lambda: ask(world, secret).is_success and rows(world, charged))
    answered: list[str] = []
    ends = threading.Event()

    def go_on() -> None:
        while not ends.is_set():
            answered.append(predict(world, secret)["request_id"])

    secret_of_a_tree = world.state / "commits" / "abc" / ".env"
    secret_of_a_tree.parent.mkdir(parents=True)
    secret_of_a_tree.write_text("PASSWORD=hunter2")
    clients = [threading.Thread(target=go_on) for _ in range(2)]
    for client in clients:
        client.start()
    assert wait_for(lambda: len(answered) >= 30)
    before = set(answered)
    archive = tmp_path_factory.mktemp("saved") / "backup.tar.gz"
    done = terminal.run(world, f"backup {archive}")
    ends.set()
    for client in clients:
        client.join()
    assert done.code == 0, done.output
    assert len(answered) > len(before)
    return Saved(archive, before, secret)


def ask(world: World, secret: str) -> httpx.Response:
    """Ask the gateway about a golden example."""
    manifest = min((world.state / "releases" / CASE).glob("*/golden.json"))
    url = f"http://127.0.0.1:{world.variables['DRIFTLINE_GATEWAY_PORT']}/v1/predict/{CASE}"
    row = json.loads(manifest.read_text())[0]["features"]
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.post(url, json={"rows": [row]}, headers=headers, trust_env=False, verify=False, timeout=30)


def predict(world: World, secret: str) -> dict:
    return ask(world, secret).raise_for_status().json()


def rows(world: World, query: str) -> list[tuple]:
    with closing(sqlite3.connect(world.state / "gateway" / "gateway.db")) as db:
        return db.execute(query).fetchall()


def decisions(world: World) -> dict[str, str]:
    found = (world.state / "monitor" / CASE).glob("*/*/decision.json")
    return {path.parent.name: json.loads(path.read_text())["digest"] for path in found}


@contextmanager
def lost(world: World) -> Iterator[World]:
    """State and data are gone, and come back afterwards; the world with what was lost is given."""
    aside = world.folder.with_name(f"{world.folder.name}-aside")
    aside.mkdir(mode=0o700)
    places = [world.state, world.data]
    for place in places:
        place.rename(aside / place.name)
    try:
        yield World(aside, world.cases, world.variables)
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
            (aside / place.name).rename(place)
        aside.rmdir()


def test_a_backup_taken_under_calls_is_the_same_stack_again(world, saved, terminal):
    """Champion, answer, ledger and budget are those of the backup; what monitoring decides next is the same."""
    response = predict(world, saved.secret)
    done = terminal.run(world, f"monitor {CASE} --as-of 2004-03-15", "down")
    assert done.code == 0, done.output
    champion = world.champion(CASE)
    with lost(world) as before:
        done = terminal.run(world, f"restore {saved.archive}")
        assert done.code == 0, done.output

        ledger = "SELECT id, price FROM usage_records WHERE state = 'done'"
        then, now = dict(rows(before, ledger)), dict(rows(world, ledger))
        assert saved.before <= set(now) < set(then)
        assert now == {call: then[call] for call in now}
        ((spent, reserved),) = rows(world, "SELECT spent, reserved FROM budgets WHERE owner LIKE 'key:%' AND spent > 0")
        assert (spent,) == rows(world, "SELECT sum(price) FROM usage_records WHERE team = 'home' AND state = 'done'")[0]
        assert [(reserved,)] == rows(world, "SELECT coalesce(sum(reserved), 0) FROM usage_records WHERE state = 'open'")

        assert terminal.run(world, "up").code == 0
        try:
            assert world.champion(CASE) == champion
            again = predict(world, saved.secret)
            assert again["predictions"] == response["predictions"]
            assert again["release"] == response["release"] == champion
            assert set(decisions(world)) == {"2004-02-10T000000Z"}
            done = terminal.run(world, f"monitor {CASE} --as-of 2004-03-15")
            assert done.code == 0, done.output
            assert decisions(world) == decisions(before)
            assert len(decisions(world)) == 2
        finally:
            assert terminal.run(world, "down").code == 0


def test_another_path_is_refused_with_what_to_do(world, saved, terminal, tmp_path):
    """The databases name absolute paths, and nobody's text is searched for them: nothing is written."""
    other = World(tmp_path / "other", world.cases, world.variables)
    done = terminal.run(other, f"restore {saved.archive}")
    assert done.code == 2, done.output
    text = "".join(done.output.split())
    for place, path in (("STATE", world.state), ("DATA", world.data)):
        assert f"DRIFTLINE_{place}={path}" in text
    assert not (other.state / "mlflow.db").exists()
    assert not other.data.exists()


def test_what_is_restored_is_private_and_has_its_modes(world, saved):
    """Files have the modes that they had, and folders, which an archive does not hold, are their owner's alone."""
    with lost(world) as before:
        restore(Settings(state=world.state, data=world.data), saved.archive)
        for place, was in ((world.state, before.state), (world.data / "raw", before.data / "raw")):
            for path in (place, *place.rglob("*")):
                mode, old = stat.S_IMODE(path.lstat().st_mode), was / path.relative_to(place)
                assert not (path.is_dir() and mode & 0o077), path
                if path.is_file() and old.is_file() and "supervisor" not in path.parts:
                    assert mode == stat.S_IMODE(old.stat().st_mode), path


def test_no_secret_of_the_environment_is_in_it(saved):
    """Not the .env that a commit's tree has; and nobody else may read the file."""
    with tarfile.open(saved.archive) as tar:
        names = tar.getnames()
    assert len(names) > 50
    assert not [name for name in names if ".env" in name or "commits" in name]
    assert saved.archive.stat().st_mode & 0o077 == 0


def test_a_restore_that_is_killed_goes_on(saved, world):
    """Ended at each of its renames, and started again: everything is there, once."""
    config = Settings(state=world.state, data=world.data)
    with lost(world):
        restore(config, saved.archive)
        whole = contents(config)
    with lost(world):
        ends = killed_again_and_again(config, saved.archive)
        assert ends[-1] == 0
        assert ends.count(9) >= 2
        assert contents(config) == whole


def killed_again_and_again(config: Settings, archive: Path) -> list[int]:
    """Restore, ended at ever later renames; gives how each ended."""
    stop = (
        "import os,sys;from pathlib import Path;from tasks.core.settings import Settings;"
        "from services.runtime.backup import restore;left,real=[int(sys.argv[4])],Path.rename\n"
        "def rename(self,to):\n left[0]-=1\n os._exit(9) if left[0]<0 else None\n return real(self,to)\n"
        "Path.rename=rename\n"
        "restore(Settings(state=sys.argv[1],data=sys.argv[2]),Path(sys.argv[3]))"
    )
    ends = []
    for renames in range(1, 30, 4):
        arguments = [str(config.state), str(config.data), str(archive), str(renames)]
        ends.append(subprocess.run([sys.executable, "-c", stop, *arguments], cwd=ROOT, check=False).returncode)
        if ends[-1] == 0:
            break
    return ends


def contents(settings: Settings) -> dict[str, int]:
    places = {"state": settings.state, "data": settings.data}
    return {
        f"{name}/{path.relative_to(place)}": path.stat().st_size if path.suffix in (".parquet", ".skops") else 0
        for name, place in places.items()
        for path in place.rglob("*")
        if path.is_file()
    }


def test_what_is_there_is_never_overwritten(saved, world, terminal):
    """A state folder with a database, or data that was landed; a backup that is there, or within what it holds."""
    for place, file in (("state", "mlflow.db"), ("data", "raw/rows.csv")):
        with lost(world):
            path = world.folder / place / file
            path.parent.mkdir(parents=True)
            path.write_text("mine")
            done = terminal.run(world, f"restore {saved.archive}")
            assert (done.code, path.read_text()) == (2, "mine"), done.output
            assert f"The {place} folder is not empty" in done.output
    for target in (saved.archive, world.state / "backup.tar.gz"):
        done = terminal.run(world, f"backup {target}")
        assert done.code == 2, done.output


def test_a_damaged_archive_leaves_nothing(saved, world, tmp_path):
    """A file that differs from its digest: it is told, and the folders are as they were, for the next try."""
    harmed = tmp_path / "harmed.tar.gz"
    content = bytearray(gzip.decompress(saved.archive.read_bytes()))
    place = content.index(b"SQLite format 3")
    content[place + 5000] ^= 1
    harmed.write_bytes(gzip.compress(content, 1))
    config = Settings(state=world.state, data=world.data)
    with lost(world):
        with pytest.raises(DataError, match="differ from their digests"):
            restore(config, harmed)
        assert not any(path.is_file() for place in (config.state, config.data) for path in place.rglob("*"))
        restore(config, saved.archive)
        assert (config.state / "mlflow.db").is_file()


def test_newer_databases_are_refused(saved, tmp_path, monkeypatch):
    """Packages older than those that wrote the databases can't read them: the commit that can is named."""
    monkeypatch.setattr("services.runtime.backup.version", lambda name: "1.0")
    with pytest.raises(InputError, match=r"Newer packages(.|\n)*prefect(.|\n)*git checkout"):
        restore(Settings(state=tmp_path / "state", data=tmp_path / "data"), saved.archive)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
