"""`driftline reproduce`: rebuild a release from its manifest, by the code of its commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import typer

from tasks.core.console import PlainTable, console
from tasks.core.errors import DriftlineError, InputError
from tasks.core.lineage import read_lineage
from tasks.core.settings import ROOT, Settings, settings
from tasks.govern.reproduction import Reproduction

REPRODUCE = "release.reproduce"
SAME = {
    "same": "the same, byte for byte",
    "within tolerance": "the same within the stated tolerance",
    "other code": "the same, byte for byte, but for the code that is named in it",
}
FLOW = "flows/reproduce.py"  # older commits don't have it


def reproduce(release: str, *, this_code: bool) -> None:
    """Raises: DriftlineError when a part differs; InputError when the release can't be built again."""
    from cli.show import find_release
    from tasks.release.seal import verify

    config = settings()
    case, _, digest = release.partition(":")
    found = find_release(case, digest or None)
    manifest = verify(found.folder)
    _require_trained(manifest)
    tree = ROOT if this_code else sealed_code(manifest["sealed"], config)
    if tree != ROOT:
        raise typer.Exit(_run_in(tree, f"{case}:{found.digest[:12]}", config))
    _print(_rebuild(case, found.digest, manifest["sealed"]["config"], config))


def _require_trained(manifest: dict[str, Any]) -> None:
    if manifest["sealed"].get("imported"):
        raise InputError(
            "The model was imported, so there is no training to repeat.",
            found=f"imported file {manifest['sealed']['imported'][:12]}",
            todo="Compare its file with the digest: driftline show",
        )


def sealed_code(sealed: dict[str, Any], config: Settings) -> Path:
    """The folder with the code of the release: this repository when it is at its commit, else a checkout.

    Raises: InputError when no commit has that code.
    """
    lineage, commit = read_lineage(ROOT), sealed["commit"]
    if sealed["dirty"]:
        raise InputError(
            "The release was sealed with uncommitted changes: no commit has its code.",
            where=f"commit {commit[:12]}",
            todo="Commit and run the case again; or compare with the code as it is: --this-code",
        )
    if lineage.commit == commit and not lineage.dirty:
        return ROOT
    from flows.deployed.checkout import checkout_commit, resolve_commit

    if resolve_commit(ROOT, commit) is None:
        raise InputError(
            "The commit of the release is not in this repository.",
            where=str(ROOT),
            found=f"commit {lineage.commit[:12]}",
            allowed=commit,
            todo="Fetch it: git fetch origin",
        )
    tree = checkout_commit(commit, ROOT, config.state)
    if not (tree / FLOW).is_file():
        raise InputError(
            "The commit of the release is older than driftline reproduce.",
            where=f"commit {commit[:12]}",
            todo="Compare with the code as it is: --this-code",
        )
    console.print(f"code: commit {commit[:12]}, checked out in {tree}", markup=False, soft_wrap=True)
    return tree


def _run_in(tree: Path, release: str, config: Settings) -> int:
    """The same command by the code of a checkout; its exit code."""
    from flows.deployed.checkout import check_packages, checkout_environment

    check_packages(read_lineage(tree).commit, tree)
    command = [sys.executable, "-m", "cli.main", "reproduce", release]
    environment = {**os.environ, **checkout_environment(tree, config)}
    return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


def _rebuild(case: str, digest: str, configuration: str, config: Settings) -> Reproduction:
    from cli.terminal import run_flow
    from flows.reproduce import sealed_profile
    from services.store.audit import record_audit_event
    from services.store.database import Store

    profile = sealed_profile(case, config.cases, configuration)
    found: Reproduction = run_flow("reproduce", {"case": case, "release": digest, "profile": profile})
    with closing(Store(config)) as store, store.writing() as connection:
        record_audit_event(
            connection,
            REPRODUCE,
            digest,
            case=case,
            outcome=found.outcome,
            rebuilt=found.rebuilt,
            different=found.differing,
        )
    shutil.rmtree(config.state / "reproduce" / case / digest[:12])
    return found


def _print(found: Reproduction) -> None:
    table = PlainTable("part", "sealed", "rebuilt", "")
    for part in (*found.parts, *found.metrics):
        table.add_row(part.name, part.sealed, part.rebuilt, part.outcome)
    console.print(table)
    if found.outcome == "different":
        raise DriftlineError(
            "The rebuilt release differs from the sealed one.",
            where=", ".join(found.differing),
            found=found.rebuilt,
            allowed=found.digest,
            todo="See the table above. Another machine, package or commit can be the cause.",
        )
    print(f"release {found.digest}: {SAME[found.outcome]}")
