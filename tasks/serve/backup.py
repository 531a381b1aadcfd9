"""What can't be made again, in one file, taken while the stack runs; and back, also to another place."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.foundation.archive import is_database, pack, read_facts, unpack
from tasks.foundation.errors import InputError
from tasks.foundation.files import telling_full_disk, write_text
from tasks.foundation.lineage import read_lineage
from tasks.foundation.permissions import use_private_umask
from tasks.foundation.settings import ROOT, Settings
from tasks.serve.supervision import Supervisor

# Who names comes before who is named: the gateway names releases of the registry, both name files that never change.
# Lines of the request log are read before its Parquet, as what is packed in between would stand nowhere.
FIRST = ("state/gateway/gateway.db", "state/mlflow.db", "state/prefect/prefect.db", "state/gateway/requests/*.jsonl")
MADE_AGAIN = re.compile(
    r"state/(secrets|logs|locks|models|frames|tuning|replay|prefect/storage|gateway/counts|bentoml/building|store/\.dvc/(tmp|site))/"
    r"|state/features/[^/]+/(?!online-)"  # tables that the next run builds; what a service looks up stays
    r"|state/supervisor/(?!programs/release-[^/]+\.json$)"
    r"|data/(?!raw/|predictions/)"  # the rest is in git
    r"|state/commits/|(.*/)?\.env$"  # trees of git's commits, each with its .env
    r"|(.*/)?(\.scratch-|\.restoring/|__pycache__/)"
    r"|.*(\.tmp|\.lock|-wal|-shm|-journal)$"
)
# Written by us about files, by their paths. Nothing else is touched: what is sealed or somebody's data stays as it is.
ABOUT = re.compile(
    r"state/(batches|candidates|verdicts|answers|pairs|mlflow|supervisor|monitor)/.*(\.json|\.ya?ml|/MLmodel)$"
    r"|state/store/\.dvc/config$|data/raw/.*/landing\.json$"
)
STAGE, READY = ".restoring", ".restoring.json"  # while files arrive; once all are whole
PACKAGES = ("prefect", "mlflow", "scikit-learn", "bentoml", "feast", "dvc")
MIGRATED = ("prefect", "mlflow")  # a database of a newer one can't be read


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
        "elsewhere": elsewhere(settings),
    }
    with telling_full_disk(archive.parent):
        return pack(archive, _places(settings), facts, lambda name: bool(MADE_AGAIN.match(name)), FIRST)


def restore(settings: Settings, archive: Path) -> dict[str, Any]:
    """Bring a backup into empty state and data folders, wherever they lie now; gives what it says of itself.

    Killed anywhere, it goes on when it is started again. Raises: InputError when there is something already, or
    newer versions made it; DataError when it is damaged; Unavailable when the disk is full.
    """
    use_private_umask()
    facts, places = read_facts(archive), _places(settings)
    _require_versions(facts)
    ready = places["state"] / READY
    if not ready.exists():
        _require_empty(places)
        with telling_full_disk(places["state"]):
            _stage(archive, facts, places)
            write_text(ready, json.dumps(facts))
    elif json.loads(ready.read_text(encoding="utf-8")) != facts:
        raise InputError(
            "Another backup was being restored here.",
            where=str(places["state"]),
            todo="Restore that one again, which goes on; or empty the folder.",
        )
    for place in places.values():
        _move_in(place / STAGE, place)
    _adopt_programs(Supervisor(places["state"]))
    ready.unlink()
    return facts


def _stage(archive: Path, facts: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    """All files beside where they belong, held against their digests; none when that fails."""
    stages = {name: place / STAGE for name, place in places.items()}
    try:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)  # a killed one's
            stage.mkdir(parents=True)
        unpack(archive, stages)
        _rename_places(stages, {Path(facts["places"][name]): place for name, place in places.items()})
    except BaseException:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)
        raise


def elsewhere(settings: Settings) -> dict[str, str]:
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
    newer = [name for name in MIGRATED if Version(made[name]) > Version(version(name))]
    if newer:
        raise InputError(
            "The backup's databases were written by newer packages than are installed.",
            found=", ".join(f"{name} {made[name]}" for name in newer),
            allowed=", ".join(f"up to {name} {version(name)}" for name in newer),
            todo=f"git checkout {facts['commit'][:12]}, make setup, and restore then.",
        )


def _require_empty(places: Mapping[str, Path]) -> None:
    """Empty folders don't count, nor locks and logs: every command makes some."""
    for name, place in places.items():
        for path in place.rglob("*"):
            if path.is_file() and not MADE_AGAIN.match(f"{name}/{path.relative_to(place)}"):
                raise InputError(
                    f"The {name} folder is not empty.",
                    where=str(path),
                    allowed=f"a {name} folder without files of a run",
                    todo=f"Move it away after `driftline down`, or set DRIFTLINE_{name.upper()} to another folder.",
                )


def _rename_places(stages: Mapping[str, Path], moved: Mapping[Path, Path]) -> None:
    """Have our own notes and the databases name files where they lie from now on."""
    pairs = {old: new for old, new in moved.items() if old != new}
    if not pairs:
        return
    # as written, as in an address, as in JSON; the longest first, as one folder may lie in the other
    forms = {
        form(str(old)): form(str(new))
        for old, new in sorted(pairs.items(), key=lambda pair: -len(str(pair[0])))
        for form in (str, quote, lambda text: json.dumps(text)[1:-1])
    }
    whole = re.compile("|".join(f"{re.escape(old)}(?![^/\"'\\s])" for old in forms))
    for name, stage in stages.items():
        for path in [path for path in stage.rglob("*") if path.is_file()]:
            if is_database(path):
                _rename_in_database(path, forms)
            elif ABOUT.match(f"{name}/{path.relative_to(stage)}"):
                text = path.read_text(encoding="utf-8")
                if (renamed := whole.sub(lambda found: forms[found[0]], text)) != text:
                    of = path.stat()
                    write_text(path, renamed)
                    os.utime(path, (of.st_atime, of.st_mtime))  # it tells when something was judged


def _rename_in_database(path: Path, forms: Mapping[str, str]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in [name for name in tables if not name.startswith("sqlite_")]:
            for _, column, *_ in db.execute(f'PRAGMA table_info("{table}")').fetchall():
                for old, new in forms.items():
                    db.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?1, ?2) '
                        f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?1)',
                        (f"{old}/", f"{new}/"),
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


def _adopt_programs(supervisor: Supervisor) -> None:
    """Have the next start serve the releases that were served, by the Python that is here."""
    for program in supervisor.programs().values():
        supervisor.put(program.model_copy(update={"command": [sys.executable, *program.command[1:]]}))
        Path(program.environment["BENTOML_HOME"]).mkdir(parents=True, exist_ok=True)
