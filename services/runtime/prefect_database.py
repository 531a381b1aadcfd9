"""A migrated Prefect database for each version, to copy: its 114 migrations take 15 s on every empty folder."""

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
    """The path beside the installed packages: the template belongs to their version of Prefect."""
    return Path(sys.prefix) / "share" / "driftline" / f"prefect-{version('prefect')}.db"


def make_template(path: Path | None = None) -> Path | None:
    """Create the migrated, empty database unless it exists; None when the folder is not writable."""
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
        return None  # the server then migrates itself
    return path


def seed(prefect_home: Path, template: Path | None = None) -> bool:
    """Copy the template into a Prefect home without database; False when it has one, or there is no template."""
    if (prefect_home / NAME).exists():
        return False
    source = make_template(template)
    if source is None:
        return False
    with atomic_path(prefect_home / NAME) as temporary:
        shutil.copyfile(source, temporary)
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
    print(make_template() or "Prefect creates its database at the first start.")
