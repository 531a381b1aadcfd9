"""`driftline doctor` names each problem and how to fix it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli import doctor
from cli.main import app
from services.serving.process import free_port
from tasks.core.files import lock
from tasks.core.settings import Settings, settings


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    """An installation whose stack is down, on free ports."""
    ports = {f"{name}_port": free_port() for name in ("prefect", "mlflow", "gateway", "worker")}
    return Settings.model_validate({"state": tmp_path / "state", "data": tmp_path / "data", **ports})


def levels(checks) -> dict[str, str]:
    return {check.name: check.level for check in checks}


def test_a_clean_installation_has_no_problem(config):
    """Without a stack there are warnings, each with a fix."""
    checks = [*doctor.check_stack(config), *doctor.check_locks(config), *doctor.check_permissions(config)]
    checks += [*doctor.check_mlflow(config), *doctor.check_python(config)]
    assert "problem" not in levels(checks).values()
    assert all(check.fix for check in checks if check.level != "ok")
    assert levels(checks)["stack"] == "warning"


def test_a_taken_port_is_a_problem(config):
    with socket.socket() as other:
        other.bind((config.host, config.gateway_port))
        other.listen()
        checks = {check.name: check for check in doctor.check_stack(config)}
    assert checks["port of gateway"].level == "problem"
    assert "DRIFTLINE_GATEWAY_PORT" in checks["port of gateway"].fix
    assert checks["port of prefect"].level == "ok"


def test_an_open_state_folder_is_a_problem(config):
    config.state.mkdir(mode=0o755)
    config.state.chmod(0o755)
    [check] = doctor.check_permissions(config)
    assert (check.level, check.fix) == ("problem", f"chmod 700 {config.state}")


def test_a_held_case_is_a_warning_and_an_old_lock_is_not(config):
    """The system releases the lock of a dead process; the file alone holds nothing."""
    (config.state / "locks").mkdir(parents=True)
    (config.state / "locks" / "old").write_text("1")
    assert levels(doctor.check_locks(config)) == {"locks": "ok"}
    with lock(config.state / "locks" / "busy", "Case busy"):
        [check] = doctor.check_locks(config)
    assert check.level == "warning"
    assert str(os.getpid()) in check.fix


@pytest.mark.parametrize(("free", "level"), [(1e9, "problem"), (5e9, "warning"), (50e9, "ok")])
def test_little_disk_space_is_reported(config, monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert set(levels(doctor.check_disk(config)).values()) == {level}


def test_packages_that_differ_from_the_lock_are_a_problem(config, monkeypatch):
    monkeypatch.setattr("tasks.core.pins.lock_mismatches", lambda _: ["mlflow 2.0", "feast none"])
    [check] = doctor.check_packages(config)
    assert (check.level, check.fix) == ("problem", "make setup")
    assert "mlflow 2.0, feast none" in check.detail


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("problem", 1)])
def test_the_exit_code_is_1_on_a_problem(config, monkeypatch, level, code):
    monkeypatch.setattr(doctor, "diagnose", lambda _: iter([doctor.Check(level, "disk", "full", "free it")]))
    settings.cache_clear()
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == code
    assert done.output.startswith(level)
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)[0]["fix"] == "free it"


def test_a_dead_server_is_a_problem(config):
    """A tracking server that does not answer is named; the other checks still run."""
    remote = config.model_copy(update={"tracking_url": f"http://127.0.0.1:{free_port()}"})
    checks = levels(doctor.diagnose(remote))
    assert checks["mlflow"] == "problem"
    assert {"python", "packages", "prefect", "stack"} <= set(checks)
