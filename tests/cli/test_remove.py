"""`driftline remove`: ends a case, keeps what others rely on, and can be killed (kind of row 45)."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from typer.testing import CliRunner

from cli import remove, status
from cli.main import app
from services.rollout.history import active_shares
from services.rollout.shares import promote, upsert_release
from services.runtime.process_specs import release_program_name
from services.runtime.supervision import Program, Supervisor
from services.serving.process import free_port
from services.store.audit import audit_events
from services.store.database import Store, usage_records
from tasks.core.errors import Busy, CaseError, InputError
from tasks.core.files import lock
from tasks.core.settings import Settings
from tests.cli.test_status import entry

DIGEST = "a" * 64


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two cases with traffic, files and a process's program; no stack runs."""
    settings = Settings(
        state=tmp_path / "state",
        data=tmp_path / "data",
        cases=tmp_path / "cases",
        prefect_url=f"http://127.0.0.1:{free_port()}/api",
    )
    with closing(Store(settings)) as store:
        for case in ("blue", "blue-sky"):
            digest = DIGEST[:-8] + f"{len(case):08d}"
            (settings.cases / case).mkdir(parents=True)
            (settings.cases / case / "case.yaml").write_text("kind: tabular")
            folders = [settings.state / part for part in remove.STATE_FOLDERS]
            for folder in (*folders, settings.data / "raw", settings.data / "predictions"):
                (folder / case).mkdir(parents=True)
                (folder / case / "file").touch()
            upsert_release(store, {"digest": digest, "sealed": {"case": case, "kind": "tabular"}})
            promote(store, case, digest, "a test")
            name = release_program_name(case, digest)
            (settings.state / "supervisor" / "programs").mkdir(parents=True, exist_ok=True)
            socket = str(settings.state / "sockets" / f"{case}.sock")
            Supervisor(settings.state).put(Program(name=name, command=["true"], host="127.0.0.1", socket=socket))
        with store.writing() as connection:
            connection.execute(insert(usage_records).values(entry(1, 20_000, "done")))
    monkeypatch.setattr(remove, "settings", lambda: settings)
    return settings


def left_of(settings: Settings, case: str) -> list[str]:
    """The files and folders, programs and shares of a case."""
    paths = [str(path) for folder in (settings.state, settings.data) for path in folder.rglob(case) if path.is_dir()]
    programs = [name for name in Supervisor(settings.state).programs() if name.rpartition("-")[0] == f"release-{case}"]
    with closing(Store(settings)) as store:
        return [*paths, *programs, *(row["digest"] for row in active_shares(store) if row["case"] == case)]


def test_what_is_the_cases_goes_and_the_rest_stays(config: Settings) -> None:
    """Traffic, program and files; another case, usage records, audit and the user's own folder stay."""
    others = left_of(config, "blue-sky")
    remove.remove("blue", yes=True, config_too=False)
    assert left_of(config, "blue") == []
    assert left_of(config, "blue-sky") == others
    assert (config.cases / "blue" / "case.yaml").is_file()
    with closing(Store(config)) as store:
        assert [event.action for event in audit_events(store, "blue")][-1] == "case.remove"
        with store.reading() as connection:
            assert len(connection.execute(select(usage_records)).all()) == 1


def test_the_folder_goes_on_request(config: Settings) -> None:
    remove.remove("blue", yes=True, config_too=True)
    assert not (config.cases / "blue").exists()
    assert (config.cases / "blue-sky").is_dir()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_killed_removal_can_be_run_again(config: Settings, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ended after so many folders, it ends in the same state at the next call."""
    removed: list[str] = []
    whole = shutil.rmtree

    def rmtree(path: Path, *arguments: Any, **options: Any) -> None:
        if len(removed) == number:
            raise KeyboardInterrupt
        removed.append(str(path))
        whole(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        remove.remove("blue", yes=True, config_too=True)
    monkeypatch.setattr(shutil, "rmtree", whole)
    assert left_of(config, "blue")
    remove.remove("blue", yes=True, config_too=True)
    assert left_of(config, "blue") == []
    assert not (config.cases / "blue").exists()


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_goes_without_a_yes(config: Settings, answer: str) -> None:
    before = left_of(config, "blue")
    done = CliRunner().invoke(app, ["remove", "blue", "--config"], input=answer)
    assert done.exit_code == 1
    assert left_of(config, "blue") == before
    assert CliRunner().invoke(app, ["remove", "blue", "--config"], input="y\n").exit_code == 0
    assert left_of(config, "blue") == []


def test_a_case_under_a_run_is_left_alone(config: Settings) -> None:
    """Another process holds it."""
    before = left_of(config, "blue")
    with lock(config.state / "locks" / "blue", "the test"):
        if (pid := os.fork()) == 0:
            try:
                remove.remove("blue", yes=True, config_too=True)
            except Busy:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert left_of(config, "blue") == before


def test_a_case_whose_folder_is_gone_is_named_and_removed(config: Settings) -> None:
    """Its champion would be served for ever: `status` says what to do."""
    shutil.rmtree(config.cases / "blue")
    cases = {each["case"]: each for each in status.gather(config)["cases"]}
    assert (cases["blue"]["has_folder"], cases["blue-sky"]["has_folder"]) == (False, True)
    remove.remove("blue", yes=True, config_too=False)
    assert left_of(config, "blue") == []
    with pytest.raises(CaseError, match="nothing of a case 'blue'"):
        remove.remove("blue", yes=True, config_too=False)


@pytest.mark.parametrize("name", ["../blue", "", "BLUE", "/"])
def test_a_name_is_no_path(config: Settings, name: str) -> None:
    with pytest.raises(InputError, match="not valid"):
        remove.remove(name, yes=True, config_too=True)
