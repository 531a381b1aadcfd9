"""`driftline doctor`: check this installation, and say how to fix what is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from tasks.core.console import console, styled
from tasks.core.errors import DriftlineError
from tasks.core.settings import ROOT, Settings

WARN_FREE, LEAST_FREE = 10e9, 2e9  # bytes; a Bento, a snapshot and a model take about 1 GB together
OTHERS = stat.S_IRWXG | stat.S_IRWXO
COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Check:
    """The result of one check; `fix` is empty when it is ok."""

    level: Literal["ok", "warning", "problem"]
    name: str
    detail: str
    fix: str = ""


def diagnose(config: Settings) -> Iterator[Check]:
    """Run all checks; a check that raises becomes a problem of its own."""
    checks: dict[str, Callable[[Settings], Iterator[Check]]] = {
        "python": check_python,
        "packages": check_packages,
        "disk": check_disk,
        "permissions": check_permissions,
        "locks": check_locks,
        "stack": check_stack,
        "prefect": check_prefect,
        "mlflow": check_mlflow,
    }
    for name, check in checks.items():
        try:
            yield from check(config)
        except DriftlineError as error:
            yield Check("problem", name, f"{error.what} {error.found}".strip(), error.todo)
        except OSError as error:
            yield Check("problem", name, str(error), "Check the path and its permissions.")


def check_python(_: Settings) -> Iterator[Check]:
    """The interpreter and system, by the rules of the installer."""
    spec = importlib.util.spec_from_file_location("supported", ROOT / "deployments" / "install" / "supported.py")
    assert spec
    assert spec.loader
    installer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installer)
    if refusal := installer.refusal():
        yield Check("problem", "python", refusal, "make clean; make setup PYTHON=python3.13")
    else:
        yield Check("ok", "python", sys.version.split()[0])


def check_packages(_: Settings) -> Iterator[Check]:
    """Installed packages against requirements.lock."""
    from tasks.core.pins import lock_mismatches

    if different := lock_mismatches(ROOT / "requirements.lock"):
        names = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        yield Check("problem", "packages", f"not as in requirements.lock: {names}", "make setup")
    else:
        yield Check("ok", "packages", "as in requirements.lock")


def check_disk(config: Settings) -> Iterator[Check]:
    """Free space where state and data live."""
    for name, folder in (("state", config.state), ("data", config.data)):
        existing = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
        level: Literal["ok", "warning", "problem"] = (
            "problem" if free < LEAST_FREE else "warning" if free < WARN_FREE else "ok"
        )
        fix = "" if level == "ok" else "Free disk space; docs/guides/operations.md lists what can be deleted."
        yield Check(level, f"disk of {name}", f"{free / 1e9:.1f} GB free at {existing}", fix)


def check_permissions(config: Settings) -> Iterator[Check]:
    """Folders and files that only their owner may read."""
    paths = [folder for folder in config.private_folders if folder.exists()]
    paths += [path for path in (ROOT / ".env", *(config.state / "secrets").glob("*")) if path.is_file()]
    open_paths = [path for path in paths if path.stat().st_uid == os.getuid() and path.stat().st_mode & OTHERS]
    for path in open_paths:
        mode = "700" if path.is_dir() else "600"
        yield Check("problem", "permissions", f"other users can access {path}", f"chmod {mode} {path}")
    for folder in paths:
        if not os.access(folder, os.R_OK | (os.W_OK | os.X_OK if folder.is_dir() else 0)):
            yield Check("problem", "permissions", f"no access to {folder}", f"chown -R $USER {folder}")
    if not open_paths:
        yield Check("ok", "permissions", "state, data and secrets are private")


def check_locks(config: Settings) -> Iterator[Check]:
    """Cases that a run holds. The system releases the lock of a dead process, so a held lock has a live owner."""
    from tasks.core.errors import Busy
    from tasks.core.files import lock

    held = False
    for path in sorted((config.state / "locks").glob("*")):
        try:
            with path.open("r+") as stream:
                owner = stream.read().strip()
            with lock(path, f"Case {path.name}"):
                path.write_text(owner)  # as it was
        except Busy as error:
            held = True
            fix = f"Wait for the run, cancel it in Prefect, or stop its process: {error.found}"
            yield Check("warning", "locks", f"a run holds case {path.name}", fix)
    if not held:
        yield Check("ok", "locks", "no run holds a case")


def check_stack(config: Settings) -> Iterator[Check]:
    """The stack's processes; while it is down, whether its ports are free."""
    from flows.deployed.servers import servers
    from services.runtime import stack

    if not stack.is_running(config):
        yield Check("warning", "stack", "down", "driftline up")
        for program, setting in servers(config):
            if not stack.is_port_in_use(program.host, program.port):
                yield Check("ok", f"port of {program.name}", f"{program.port} is free")
            else:
                fix = f"Stop the other program, or set {setting} to a free port in .env."
                yield Check("problem", f"port of {program.name}", f"{program.port} is taken", fix)
        return
    for service in stack.list_services(config):
        if service.state in ("ready", "starting"):
            yield Check("ok" if service.state == "ready" else "warning", service.name, service.state)
        else:
            yield Check("problem", service.name, service.state, f"Read {service.log}; then: driftline restart")


def check_prefect(config: Settings) -> Iterator[Check]:
    """Whether Prefect's server answers and accepts the login."""
    from services.runtime.prefect_api import reach_prefect

    if reach_prefect():
        yield Check("ok", "prefect", f"answers at {config.prefect_api}")
    elif config.prefect_url:
        yield Check("problem", "prefect", f"no answer at {config.prefect_api}", "Check DRIFTLINE_PREFECT_URL.")
    else:
        yield Check("warning", "prefect", "down; a run starts a temporary server", "driftline up")


def check_mlflow(config: Settings) -> Iterator[Check]:
    """Whether MLflow's store answers."""
    uri = config.mlflow_uri
    if uri.startswith("sqlite") and not (config.state / "mlflow.db").exists():
        yield Check("ok", "mlflow", "no database yet; the first run creates it")
        return
    from tasks.core.mlflow import mlflow_client

    mlflow_client(config.tracking).search_experiments(max_results=1)
    yield Check("ok", "mlflow", "the tracking store answers")


def print_checks(checks: Iterator[Check], as_json: bool) -> bool:
    """Print each check as it ends; whether there was a problem."""
    results = []
    for check in checks:
        results.append(check)
        if not as_json:
            console.print(styled(f"{check.level:<8}", COLORS[check.level]), f"{check.name}: {check.detail}")
            if check.fix:
                console.print(f"         fix: {check.fix}")
    if as_json:
        print(json.dumps([asdict(check) for check in results], indent=2))
    return any(check.level == "problem" for check in results)
