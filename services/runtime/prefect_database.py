"""Prefect's database, made once for each version and copied: its 114 migrations take 15 s on every empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tasks.core.files import atomic_path, lock, scratch_folder

NAME = "prefect.db"


def template_path() -> Path:
    """Beside the installed packages: it belongs to their version of Prefect, and to no state folder."""
    return Path(sys.prefix) / "share" / "driftline" / f"prefect-{version('prefect')}.db"


def make_template(path: Path | None = None) -> Path | None:
    """Make the migrated, empty database unless it is there; None where the folder can't be written."""
    path = path or template_path()
    if path.is_file():
        return path
    try:
        with lock(path.with_suffix(".lock"), "Prefect's database", wait=True):
            if not path.is_file():
                with scratch_folder(path.parent) as home, atomic_path(path) as temporary:
                    _migrate(Path(home))
                    shutil.copyfile(Path(home) / NAME, temporary)
    except (OSError, subprocess.CalledProcessError):
        return None  # the server then migrates by itself
    return path


def seed(prefect_home: Path, template: Path | None = None) -> bool:
    """Put a migrated database into a Prefect home that has none; False when it has one, or none could be made."""
    if (prefect_home / NAME).exists():
        return False
    made = make_template(template)
    if made is None:
        return False
    with atomic_path(prefect_home / NAME) as temporary:
        shutil.copyfile(made, temporary)
    return True


def _migrate(home: Path) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    silent = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
        env={**others, **silent, "PREFECT_HOME": str(home)},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )


if __name__ == "__main__":
    print(make_template() or "Prefect's database will be made at the first start.")
