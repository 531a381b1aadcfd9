"""The code of a run: this repository, or a clone of the commit that the run names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import InputError, Unavailable
from tasks.core.files import atomic_path, lock
from tasks.core.git_push import COMMIT_PATTERN
from tasks.core.lineage import read_lineage
from tasks.core.pins import lock_mismatches
from tasks.core.settings import ROOT, Settings

KEEP = 30 * 86_400  # seconds after the start of its last run: longer than a run may wait for approval


def code_directory() -> dict[str, str]:
    """The pull step of every deployment: the working folder of a run.

    Raises: Unavailable, InputError when the run names a commit and this is not its code, or its packages are not
    installed.
    """
    from prefect.runtime import flow_run

    return {"directory": str(run_directory(requested_commit(flow_run.parameters)))}


def requested_commit(parameters: Mapping[str, Any]) -> str:
    """The commit that a run's parameters name; empty: none."""
    request = parameters.get("request")
    return str(request.get("commit") or "") if isinstance(request, dict) else ""


def run_directory(commit: str) -> Path:
    """This repository's folder, which must hold the commit if one is named.

    Raises: as `code_directory`.
    """
    if commit:
        lineage = read_lineage(ROOT)
        if lineage.commit != commit or lineage.dirty:
            raise Unavailable(
                f"The code of commit {commit[:12]} is no longer available.",
                where=str(ROOT),
                found=f"commit {lineage.commit[:12]}" + (" with changes" if lineage.dirty else ""),
                todo="Run its push again.",
            )
        check_packages(commit, ROOT)
        os.utime(ROOT)
    return ROOT


def checkout_commit(commit: str, repository: Path, state: Path) -> Path:
    """A folder with a commit's files, created unless it exists; unused ones are removed after a time.

    It is a clone that shares the repository's objects: unlike a git worktree, it can be created under a temporary
    name, and removed without a trace in the repository.
    """
    trees = state / "commits"
    path = trees / commit
    with lock(trees / ".lock", "The trees of commits", wait=True):
        for old in trees.glob("*"):
            if old.is_dir() and old != path and old.stat().st_mtime < time.time() - KEEP:
                shutil.rmtree(old)
        if not path.exists():
            with atomic_path(path) as temporary:
                git(repository, "clone", "--quiet", "--shared", "--no-checkout", str(repository), str(temporary))
                git(temporary, "-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", commit)
                (temporary / ".env").symlink_to(repository / ".env")
        os.utime(path)
    return path


def cases_folder(tree: Path, config: Settings) -> Path:
    """The cases of that tree; they may lie outside the repository."""
    return tree / config.cases.relative_to(ROOT) if config.cases.is_relative_to(ROOT) else config.cases


def require_published(commit: str, repository: Path, branch: str) -> None:
    """Require that a commit is part of the branch or of a tag, in this repository or at its origin.

    Raises: InputError, so that only published code can be run.
    """
    if not (re.fullmatch(COMMIT_PATTERN, commit) and is_published(commit, repository, branch)):
        raise InputError(
            "The run names a commit that is not published.",
            where="commit",
            found=commit[:64],
            allowed=f"40 or 64 hexadecimal digits of a commit of branch {branch} or of a tag",
            todo="Push it, or leave it empty for the code as it is.",
        )


def is_published(commit: str, repository: Path, branch: str) -> bool:
    """Whether a commit is in this repository, and part of the branch or of a tag."""
    if resolve_commit(repository, commit) != commit:
        return False
    refs = [f"refs/{owner}{kind}" for owner in ("", "driftline/") for kind in (f"heads/{branch}", "tags")]
    return bool(git(repository, "for-each-ref", "--count=1", "--format=%(refname)", f"--contains={commit}", *refs))


def checkout_environment(tree: Path, config: Settings) -> dict[str, str]:
    """The environment of a process that runs the code and the cases of that tree on this state and data."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")])),
        "DRIFTLINE_STATE": str(config.state),
        "DRIFTLINE_DATA": str(config.data),
        "DRIFTLINE_CASES": str(cases_folder(tree, config)),
    }


def fetch(repository: Path, state: Path, commit: str) -> str | None:
    """Fetch all branches and tags of the origin, and resolve the commit that was pushed; None when it no longer exists.

    They get refs of their own, so that no branch of the user changes. Raises: Unavailable when git fails.
    """
    refspecs = [f"+refs/{kind}/*:refs/driftline/{kind}/*" for kind in ("heads", "tags")]
    with lock(state / "commits" / ".fetching", "Fetching from origin", wait=True):
        git(
            repository,
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--refmap=",
            "--prune",
            "origin",
            *refspecs,
        )
    return resolve_commit(repository, commit)


def resolve_commit(repository: Path, commit: str) -> str | None:
    """The commit that a commit or an annotated tag names; None when it is not in the repository."""
    try:
        return git(repository, "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}").strip()
    except Unavailable:
        return None


def changed_files(repository: Path, old: str, new: str) -> list[str]:
    """The files that differ between two commits; all files of a new branch, or when the old commit no longer exists.

    After a force-push the previous tip is the old commit.
    """
    if resolve_commit(repository, old):
        names = git(repository, "diff", "--name-only", "--no-renames", "-z", old, new)
    else:
        names = git(repository, "ls-tree", "-r", "--name-only", "-z", new)
    return [name for name in names.split("\0") if name]


def git(repository: Path, *arguments: str) -> str:
    """Run git. Raises: Unavailable with git's message."""
    variables = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=repository,
            env={**variables, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=300,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise _git_failed(repository, arguments, error.stderr.strip() or f"exit code {error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _git_failed(repository, arguments, str(error)) from error
    return done.stdout


def _git_failed(repository: Path, arguments: tuple[str, ...], found: str) -> Unavailable:
    return Unavailable(
        f"git {arguments[0]} failed.",
        where=str(repository),
        found=found,
        todo="Check that the repository's origin answers without a password prompt: git fetch origin",
    )


def check_packages(commit: str, tree: Path) -> None:
    """Require that the packages are installed that a commit's checkout locks. Raises: InputError."""
    differing = lock_mismatches(tree / "requirements.lock")
    if differing:
        raise InputError(
            f"Commit {commit[:12]} locks other packages than are installed.",
            where="requirements.lock",
            found=", ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else ""),
            allowed="the packages of the commit's lock, which its release records",
            todo="Install them (git pull, make setup), and run it again.",
        )
