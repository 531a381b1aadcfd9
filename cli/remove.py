"""`driftline remove`: end a case, and delete what is its own."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import typer

from flows.case import case_names
from tasks.core.console import console
from tasks.core.errors import CaseError, InputError
from tasks.core.files import lock
from tasks.core.settings import Settings, settings

# of the state folder: what has a folder for each case
STATE_FOLDERS = (
    "batches",
    "candidates",
    "docs",
    "features",
    "knowledge",
    "monitor",
    "practice",
    "quarantine",
    "releases",
    "replay",
    "reproduce",
    "searches",
    "traffic",
    "tuning",
    "verdicts",
    "bentoml/bentos",
    "store/snapshots",
)
RETAINED = (
    "usage records, feedback, approvals, audit events and the request log: what it cost, and who decided what",
    "MLflow's runs, and the data of its snapshots in DVC's cache and remote",
)


def remove(case: str, *, yes: bool, config_too: bool) -> None:
    """Stop serving a case and delete its files, in an order in which a killed removal can be run again.

    Raises: InputError for a name that is none; CaseError when nothing is known of it; Busy while a run holds it.
    """
    config = settings()
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", case):
        raise InputError("The case name is not valid.", where="CASE", found=case, allowed="a-z, 0-9, _ and -")
    folder = config.cases / case
    paths = [*_own_paths(config, case), *([folder] if config_too and folder.is_dir() else [])]
    served = _is_served(config, case)
    if not (served or paths or folder.is_dir()):
        names = case_names(config.cases)
        near = difflib.get_close_matches(case, names, 1)
        raise CaseError(
            f"There is nothing of a case {case!r}.",
            where=str(config.state),
            found=", ".join(names) or "no case at all",
            todo=f"Did you mean {near[0]}?" if near else "Name one of those.",
        )
    if not yes:
        for line in _plan(config, case, paths, served=served):
            console.print(line, markup=False)
        typer.confirm(f"Remove {case}?", abort=True)
    with lock(config.state / "locks" / case, f"Case {case}"):
        _remove(config, case, paths)
    retained = [
        *RETAINED,
        *([] if config_too or not folder.is_dir() else [f"{folder}: your file; --config removes it"]),
    ]
    pinned = config.data / "snapshots" / f"{case}.dvc"
    for each in [*retained, *([f"{pinned}, which git tracks"] if pinned.is_file() else [])]:
        console.print(f"  kept     {each}", markup=False)


def _plan(config: Settings, case: str, paths: list[Path], *, served: bool) -> Iterator[str]:
    if served:
        yield f"{case} is served: requests will get 404"
    for path in paths:
        yield f"  deletes  {path}"


def _is_served(config: Settings, case: str) -> bool:
    """Whether the gateway's database or the supervisor knows the case."""
    from services.rollout.removal import known_cases
    from services.runtime.supervision import Supervisor
    from services.store.database import Store

    if any(name.rpartition("-")[0] == f"release-{case}" for name in Supervisor(config.state).programs()):
        return True
    if not config.gateway_store and not (config.state / "gateway" / "gateway.db").exists():
        return False
    with closing(Store(config)) as store:
        return case in known_cases(store)


def _own_paths(config: Settings, case: str) -> list[Path]:
    state, data = config.state, config.data
    folders = [*(state / part / case for part in STATE_FOLDERS), data / "raw" / case, data / "predictions" / case]
    programs = [
        path
        for path in (*state.glob("supervisor/homes/release-*"), *state.glob("logs/release-*"))
        if path.name.removesuffix(".log").rpartition("-")[0] == f"release-{case}"
    ]
    names = (f"logs/smoke-{case}.log", f"requests/{case}.json", f"profiles/{case}.html")
    files = [state / name for name in names]
    return [path for path in (*folders, *programs, *files) if path.exists()]


def _remove(config: Settings, case: str, paths: list[Path]) -> None:
    from flows.deployed.deploy import remove_deployments
    from services.rollout.removal import stop_serving
    from services.store.database import Store
    from tasks.release.registry import unregister

    with closing(Store(config)) as store:
        stopped = stop_serving(store, case, config)
    console.print(f"  stopped  {', '.join(stopped) or 'its traffic; no process of it ran'}", markup=False)
    deployments = remove_deployments(case)
    if deployments is None:
        console.print("  later    Prefect's server is down: driftline up, then driftline deploy or this command again")
    elif deployments:
        console.print(f"  removed  {len(deployments)} deployments with their schedules")
    if _has_registry(config) and unregister(config.tracking, case):
        console.print("  removed  its versions and aliases in MLflow's model registry")
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        console.print(f"  removed  {path}", markup=False)


def _has_registry(config: Settings) -> bool:
    return not config.mlflow_uri.startswith("sqlite") or (config.state / "mlflow.db").exists()
