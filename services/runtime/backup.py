"""What can't be made again, in one file, taken while the stack runs; and back to where it was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.runtime.archive import pack, read_metadata, unpack
from services.runtime.process_specs import current_form
from services.runtime.supervision import Supervisor
from tasks.core.errors import InputError
from tasks.core.files import disk_full_as_unavailable, write_text
from tasks.core.lineage import read_lineage
from tasks.core.permissions import make_private, use_private_umask
from tasks.core.settings import ROOT, Settings

# Who names comes before who is named: the gateway names releases of the registry, both name files that never change.
# Lines of the request log are read before its Parquet, as what is packed in between would stand nowhere.
FIRST = ("state/gateway/gateway.db", "state/mlflow.db", "state/prefect/prefect.db", "state/gateway/requests/*.jsonl")
REPRODUCIBLE = re.compile(
    r"state/(secrets|logs|locks|scratch|models|frames|tuning|replay|prefect/storage|gateway/counts|bentoml/building|store/\.dvc/(tmp|site))/"
    r"|state/features/[^/]+/(?!online-)"  # tables that the next run builds; what a service looks up stays
    r"|state/supervisor/(?!programs/release-[^/]+\.json$)"
    r"|data/(?!raw/|predictions/)"  # the rest is in git
    r"|state/commits/|(.*/)?\.env$"  # trees of git's commits, each with its .env
    r"|(.*/)?(\.scratch-|\.restoring/|__pycache__/)"
    r"|.*(\.tmp|\.lock|-wal|-shm|-journal)$"
)
STAGE, READY = ".restoring", ".restoring.json"  # while files arrive; once all are whole
PACKAGES = ("prefect", "mlflow", "scikit-learn", "bentoml", "feast", "dvc")
MIGRATING = ("prefect", "mlflow")  # a database of a newer one can't be read


def backup(settings: Settings, archive: Path) -> int:
    """Write all that can't be made again into a new archive, while the stack runs; gives the number of files.

    Raises: InputError when the archive exists, or would lie within what it holds; Unavailable when the disk is full.
    """
    if archive.exists() or any(archive.is_relative_to(place) for place in _places(settings).values()):
        raise InputError(
            "A backup is a new file, outside the state and data folders.", where=str(archive), todo="Name another one."
        )
    lineage = read_lineage(ROOT)
    facts = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": lineage.commit,
        "dirty": lineage.dirty,
        "versions": {name: version(name) for name in PACKAGES},
        "places": {name: str(path) for name, path in _places(settings).items()},
        "elsewhere": external_parts(settings),
    }
    with disk_full_as_unavailable(archive.parent):
        return pack(archive, _places(settings), facts, lambda name: bool(REPRODUCIBLE.match(name)), FIRST)


def restore(settings: Settings, archive: Path) -> dict[str, Any]:
    """Bring a backup into empty state and data folders, at the paths that they had; gives what it says of itself.

    Killed anywhere, it goes on when it is started again. Raises: InputError when there is something already, when
    newer versions made it, or at another path; DataError when it is damaged; Unavailable when the disk is full.
    """
    use_private_umask()
    facts, places = read_metadata(archive), _places(settings)
    _require_versions(facts)
    _require_same_places(facts, places)
    ready = places["state"] / READY
    if not ready.exists():
        _require_empty(places)
        with disk_full_as_unavailable(places["state"]):
            _stage(archive, places)
            write_text(ready, json.dumps(facts))
    elif json.loads(ready.read_text(encoding="utf-8")) != facts:
        raise InputError(
            "Another backup was being restored here.",
            where=str(places["state"]),
            todo="Restore that one again, which goes on; or empty the folder.",
        )
    for place in places.values():
        _move_in(place / STAGE, place)
    _adopt_programs(settings)
    ready.unlink()
    return facts


def _stage(archive: Path, places: Mapping[str, Path]) -> None:
    """All files beside where they belong, held against their digests; none when that fails."""
    stages = {name: place / STAGE for name, place in places.items()}
    try:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)  # a killed one's
            make_private(stage)
        unpack(archive, stages)
    except BaseException:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)
        raise


def external_parts(settings: Settings) -> dict[str, str]:
    """What is not in a backup, as it does not live here, and how to save it."""
    own = {
        "Prefect's runs": (settings.prefect_url or settings.prefect_database, "pg_dump of that server's database"),
        "MLflow's tables": (settings.tracking_url, "pg_dump of that server's database"),
        "MLflow's artifacts": (settings.artifacts_url, "a copy of that bucket or folder, or its versioning"),
        "the DVC remote": (settings.dvc_remote, "a copy of that bucket or folder; this holds the snapshots made here"),
        "the gateway's tables": (settings.gateway_store, "pg_dump of that database, before this backup"),
        "online features": (settings.online_store, "nothing: the next run fills them"),
    }
    return {part: how for part, (where, how) in own.items() if where}


def _places(settings: Settings) -> dict[str, Path]:
    return {"state": settings.state, "data": settings.data}


def _require_versions(facts: Mapping[str, Any]) -> None:
    from packaging.version import Version

    made = facts["versions"]
    newer = [name for name in MIGRATING if Version(made[name]) > Version(version(name))]
    if newer:
        raise InputError(
            "The backup's databases were written by newer packages than are installed.",
            found=", ".join(f"{name} {made[name]}" for name in newer),
            allowed=", ".join(f"up to {name} {version(name)}" for name in newer),
            todo=f"git checkout {facts['commit'][:12]}, make setup, and restore then.",
        )


def _require_same_places(facts: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    """Prefect's and MLflow's databases, and our own records, name files by their absolute paths."""
    wanted = {name: Path(facts["places"][name]) for name in places}
    if wrong := [name for name in places if places[name] != wanted[name]]:
        raise InputError(
            "The backup is of folders at other paths, which its databases name.",
            where=", ".join(f"DRIFTLINE_{name.upper()}" for name in wrong),
            found=", ".join(str(places[name]) for name in wrong),
            allowed=", ".join(str(wanted[name]) for name in wrong),
            todo="Make these folders yours, and set "
            + " and ".join(f"DRIFTLINE_{name.upper()}={wanted[name]}" for name in wrong)
            + " in .env, for good. A bind mount at that path does it, too; a symbolic link does not.",
        )


def _require_empty(places: Mapping[str, Path]) -> None:
    """Empty folders don't count, nor locks and logs: every command makes some."""
    for name, place in places.items():
        for path in place.rglob("*"):
            if path.is_file() and not REPRODUCIBLE.match(f"{name}/{path.relative_to(place)}"):
                raise InputError(
                    f"The {name} folder is not empty.",
                    where=str(path),
                    allowed=f"a {name} folder without files of a run",
                    todo=f"Move it away after `driftline down`, or set DRIFTLINE_{name.upper()} to another folder.",
                )


def _move_in(stage: Path, place: Path) -> None:
    """By renaming, which a killed process has done or not; then the rest."""
    for path in sorted(stage.iterdir()) if stage.is_dir() else []:
        target = place / path.name
        if target.is_dir() and not target.is_symlink():
            if not any(target.iterdir()):
                target.rmdir()
            else:
                _move_in(path, target)
                continue
        path.rename(target)
    shutil.rmtree(stage, ignore_errors=True)


def _adopt_programs(settings: Settings) -> None:
    """Have the next start serve the releases that were served, by this Python and the way of this version."""
    supervisor = Supervisor(settings.state)
    for program in supervisor.programs().values():
        supervisor.put(current_form(program, settings))
        Path(program.environment["BENTOML_HOME"]).mkdir(parents=True, exist_ok=True)
