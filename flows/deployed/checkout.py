"""Where a run's code lies: in this repository, or in a tree of the commit that it was started for."""

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

KEEP = 30 * 86_400  # seconds that a tree is kept after its last run began: longer than a run may wait for a person


def code_directory() -> dict[str, str]:
    """The pull step of every deployment: the folder that a run works in.

    Raises: Unavailable, InputError when the run belongs to a commit and this is not its code, or its packages are
    not installed; nothing else runs in its place.
    """
    from prefect.runtime import flow_run

    return {"directory": str(run_directory(requested_commit(flow_run.parameters)))}


def requested_commit(parameters: Mapping[str, Any]) -> str:
    """The commit that a run's parameters name; empty: none."""
    request = parameters.get("request")
    return str(request.get("commit") or "") if isinstance(request, dict) else ""


def run_directory(commit: str) -> Path:
    """This repository's folder, which has to be that commit's tree if there is a commit.

    Raises: as `code_directory`.
    """
    if commit:
        lineage = read_lineage(ROOT)
        if lineage.commit != commit or lineage.dirty:
            raise Unavailable(
                f"The code of commit {commit[:12]} is not here any more.",
                where=str(ROOT),
                found=f"commit {lineage.commit[:12]}" + (" with changes" if lineage.dirty else ""),
                todo="Run its push again.",
            )
        _check_packages(commit)
        os.utime(ROOT)
    return ROOT


def checkout_commit(commit: str, repository: Path, state: Path) -> Path:
    """A folder with the whole of a commit, made unless it is there; those that nobody used for long are removed.

    A clone that shares the repository's objects: unlike a work tree of git's own it can be made under a temporary
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


def cases_folder(tree: Path, here: Settings) -> Path:
    """Where that tree has the cases; they may lie outside the repository altogether."""
    return tree / here.cases.relative_to(ROOT) if here.cases.is_relative_to(ROOT) else here.cases


def require_published(commit: str, repository: Path, branch: str) -> None:
    """See that a commit is part of the branch or of a tag, here or at the repository's origin.

    Raises: InputError, so that who may start runs has us check out nothing but what was released or reviewed.
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
    """Whether a commit, which is known here, is part of the branch or of a tag."""
    if resolve_commit(repository, commit) != commit:
        return False
    refs = [f"refs/{owner}{kind}" for owner in ("", "driftline/") for kind in (f"heads/{branch}", "tags")]
    return bool(git(repository, "for-each-ref", "--count=1", "--format=%(refname)", f"--contains={commit}", *refs))


def checkout_environment(tree: Path, here: Settings) -> dict[str, str]:
    """The variables of a process that runs the code and the cases of that tree, on our state and data."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")])),
        "DRIFTLINE_STATE": str(here.state),
        "DRIFTLINE_DATA": str(here.data),
        "DRIFTLINE_CASES": str(cases_folder(tree, here)),
    }


def fetch(repository: Path, state: Path, commit: str) -> str | None:
    """Get everything from the repository's origin, and give the commit that was pushed; None: it is not there any more.

    Into refs of our own, which nobody's work is disturbed by. Raises: Unavailable when origin does not answer.
    """
    ours = [f"+refs/{kind}/*:refs/driftline/{kind}/*" for kind in ("heads", "tags")]
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
            *ours,
        )
    return resolve_commit(repository, commit)


def resolve_commit(repository: Path, commit: str) -> str | None:
    """The commit that this names, itself or as an annotated tag; None when it is not in the repository."""
    try:
        return git(repository, "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}").strip()
    except Unavailable:
        return None


def changed_files(repository: Path, old: str, new: str) -> list[str]:
    """What differs between two commits; all files when the old one is not known: a new branch, or a history rewritten.

    Of a history rewritten from a known commit too it is what differs between what was there and what is.
    """
    if resolve_commit(repository, old):
        names = git(repository, "diff", "--name-only", "--no-renames", "-z", old, new)
    else:
        names = git(repository, "ls-tree", "-r", "--name-only", "-z", new)
    return [name for name in names.split("\0") if name]


def git(repository: Path, *arguments: str) -> str:
    """Raises: Unavailable with what git said."""
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
        todo="See that the repository's origin can be reached without a password prompt: git fetch origin",
    )


def _check_packages(commit: str) -> None:
    differing = lock_mismatches(ROOT / "requirements.lock")
    if differing:
        raise InputError(
            f"Commit {commit[:12]} locks other packages than are installed.",
            where="requirements.lock",
            found=", ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else ""),
            allowed="what the commit's lock says, as its release will claim",
            todo="Install them (git pull, make setup), and run it again.",
        )
