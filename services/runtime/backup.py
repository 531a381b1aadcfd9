"""Backup of what can't be reproduced into one file, while the stack runs; and restore to the same paths."""

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

# What refers comes before what it refers to: the gateway to releases of the registry, both to files that never change.
# Lines of the request log come before its Parquet files, since lines that are moved in between would be lost.
FIRST = ("state/gateway/gateway.db", "state/mlflow.db", "state/prefect/prefect.db", "state/gateway/requests/*.jsonl")
REPRODUCIBLE = re.compile(
    r"state/(secrets|logs|locks|scratch|models|frames|tuning|replay|prefect/storage|gateway/counts|bentoml/building|store/\.dvc/(tmp|site))/"
    r"|state/features/[^/]+/(?!online-)"  # tables that the next run builds; the online store stays
    r"|state/supervisor/(?!programs/release-[^/]+\.json$)"
    r"|data/(?!raw/|predictions/)"  # the rest is in git
    r"|state/commits/|(.*/)?\.env$"  # clones of commits, each with its .env
    r"|(.*/)?(\.scratch-|\.restoring/|__pycache__/)"
    r"|.*(\.tmp|\.lock|-wal|-shm|-journal)$"
)
STAGE, READY = ".restoring", ".restoring.json"  # folder of arriving files; marker once all are complete
PACKAGES = ("prefect", "mlflow", "scikit-learn", "bentoml", "feast", "dvc")
MIGRATING = ("prefect", "mlflow")  # packages that can't read a newer version's database


def backup(settings: Settings, archive: Path) -> int:
    """Write all that can't be reproduced into a new archive, while the stack runs; returns the number of files.

    Raises: InputError when the archive exists, or would lie within what it holds; Unavailable when the disk is full.
    """
    if archive.exists() or any(archive.is_relative_to(place) for place in _places(settings).values()):
        raise InputError(
            "A backup is a new file, outside the state and data folders.", where=str(archive), todo="Name another one."
        )
    lineage = read_lineage(ROOT)
    metadata = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": lineage.commit,
        "dirty": lineage.dirty,
        "versions": {name: version(name) for name in PACKAGES},
        "places": {name: str(path) for name, path in _places(settings).items()},
        "elsewhere": external_parts(settings),
    }
    with disk_full_as_unavailable(archive.parent):
        return pack(archive, _places(settings), metadata, lambda name: bool(REPRODUCIBLE.match(name)), FIRST)


def restore(settings: Settings, archive: Path) -> dict[str, Any]:
    """Restore a backup into empty state and data folders at their original paths; returns its metadata.

    A killed restore continues when it is repeated. Raises: InputError when the folders are not empty, have other paths,
    or newer versions wrote the backup; DataError when it is damaged; Unavailable when the disk is full.
    """
    use_private_umask()
    metadata, places = read_metadata(archive), _places(settings)
    _require_versions(metadata)
    _require_same_places(metadata, places)
    ready = places["state"] / READY
    if not ready.exists():
        _require_empty(places)
        with disk_full_as_unavailable(places["state"]):
            _stage(archive, places)
            write_text(ready, json.dumps(metadata))
    elif json.loads(ready.read_text(encoding="utf-8")) != metadata:
        raise InputError(
            "The restore of another backup is not complete.",
            where=str(places["state"]),
            todo="Repeat that restore, which continues; or empty the folder.",
        )
    for place in places.values():
        _move_in(place / STAGE, place)
    _adopt_programs(settings)
    ready.unlink()
    return metadata


def _stage(archive: Path, places: Mapping[str, Path]) -> None:
    """Unpack all files beside their final places, with their digests checked; none when that fails."""
    stages = {name: place / STAGE for name, place in places.items()}
    try:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)  # of a killed restore
            make_private(stage)
        unpack(archive, stages)
    except BaseException:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)
        raise


def external_parts(settings: Settings) -> dict[str, str]:
    """Parts on external servers, which a backup lacks, and how to save them."""
    parts = {
        "Prefect's runs": (settings.prefect_url or settings.prefect_database, "pg_dump of that server's database"),
        "MLflow's tables": (settings.tracking_url, "pg_dump of that server's database"),
        "MLflow's artifacts": (settings.artifacts_url, "a copy of that bucket or folder, or its versioning"),
        "the DVC remote": (settings.dvc_remote, "a copy of that bucket or folder; this holds the snapshots made here"),
        "the gateway's tables": (settings.gateway_store, "pg_dump of that database, before this backup"),
        "online features": (settings.online_store, "nothing: the next run fills them"),
    }
    return {part: how for part, (where, how) in parts.items() if where}


def _places(settings: Settings) -> dict[str, Path]:
    return {"state": settings.state, "data": settings.data}


def _require_versions(metadata: Mapping[str, Any]) -> None:
    from packaging.version import Version

    versions = metadata["versions"]
    newer = [name for name in MIGRATING if Version(versions[name]) > Version(version(name))]
    if newer:
        raise InputError(
            "Newer packages than the installed ones wrote the backup's databases.",
            found=", ".join(f"{name} {versions[name]}" for name in newer),
            allowed=", ".join(f"up to {name} {version(name)}" for name in newer),
            todo=f"git checkout {metadata['commit'][:12]}, make setup, then restore.",
        )


def _require_same_places(metadata: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    """The databases of Prefect, MLflow and the platform name files by absolute paths."""
    original = {name: Path(metadata["places"][name]) for name in places}
    if wrong := [name for name in places if places[name] != original[name]]:
        raise InputError(
            "The backup's folders had other paths, which its databases name.",
            where=", ".join(f"DRIFTLINE_{name.upper()}" for name in wrong),
            found=", ".join(str(places[name]) for name in wrong),
            allowed=", ".join(str(original[name]) for name in wrong),
            todo="Create these folders, and set "
            + " and ".join(f"DRIFTLINE_{name.upper()}={original[name]}" for name in wrong)
            + " in .env, permanently. A bind mount at that path also works; a symbolic link does not.",
        )


def _require_empty(places: Mapping[str, Path]) -> None:
    """Empty folders, locks and logs don't count, since each command creates some."""
    for name, place in places.items():
        for path in place.rglob("*"):
            if path.is_file() and not REPRODUCIBLE.match(f"{name}/{path.relative_to(place)}"):
                raise InputError(
                    f"The {name} folder is not empty.",
                    where=str(path),
                    allowed=f"a {name} folder without files of a run",
                    todo=f"Move it after `driftline down`, or set DRIFTLINE_{name.upper()} to another folder.",
                )


def _move_in(stage: Path, place: Path) -> None:
    """Move files by renaming, which is atomic; then remove the stage."""
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
    """Rewrite the programs of served releases for this Python and this version."""
    supervisor = Supervisor(settings.state)
    for program in supervisor.programs().values():
        supervisor.put(current_form(program, settings))
        Path(program.environment["BENTOML_HOME"]).mkdir(parents=True, exist_ok=True)
