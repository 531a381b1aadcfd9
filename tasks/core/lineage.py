"""Code lineage: the commit, whether the work tree differs from it, and the lock file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tasks.core.config import Result
from tasks.core.files import file_digest


class Lineage(Result):
    commit: str  # git commit, or "none" outside a repository
    dirty: bool  # tracked files differ from that commit
    lock_digest: str  # SHA-256 of requirements.lock


def read_lineage(root: Path) -> Lineage:
    """Read the lineage of the code under `root` from git and the lock file."""
    lock = root / "requirements.lock"
    return Lineage(
        commit=_git(root, "rev-parse", "HEAD") or "none",
        dirty=bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        lock_digest=file_digest(lock) if lock.is_file() else "none",
    )


def _git(root: Path, *arguments: str) -> str:
    try:
        completed = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip() if completed.returncode == 0 else ""
