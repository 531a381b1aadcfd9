"""What a fetch returns, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tasks.core.config import Result, digest_of

MAX_NAMES = 3  # in a summary


class FetchedFile(Result):
    """One local file of a source."""

    name: str  # within the source: a relative path, or the last part of the address
    path: Path
    digest: str  # SHA-256
    size: int
    version: str = ""  # what tells cheaply that it is unchanged: ETag, or modification time


class Fetched(Result):
    """The local files of a source, whatever its address."""

    uri: str  # without secrets
    files: tuple[FetchedFile, ...]
    at: datetime
    version: str = ""  # of a Delta table; of a database, when the last row that was read became known
    changes: str = ""  # since the fetch before, in words; empty: none, or the first fetch

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self.files]

    @property
    def digest(self) -> str:
        """SHA-256 over the version, and the contents and kinds of all files in their order."""
        return digest_of([self.version, [[file.path.suffix, file.digest] for file in self.files]])


def describe_changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Which parts of a source, by digest, are new, changed or gone, in words; empty when none is."""
    groups = {
        "new": [name for name in new if name not in old],
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "gone": [name for name in old if name not in new],
    }
    return ", ".join(f"{len(names)} {word} ({_listed(names)})" for word, names in groups.items() if names)


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:MAX_NAMES])
    return shown + (", ..." if len(names) > MAX_NAMES else "")
