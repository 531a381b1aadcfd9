"""`driftline backup` and `restore`: everything that can't be rebuilt, in one archive."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

Archive = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Archive of `driftline backup`.")
]
NewArchive = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="Path of the new archive. Default: driftline-DATE.tar.gz in this folder."),
]


def backup(archive: NewArchive = None) -> None:
    """Write everything that can't be rebuilt to one archive; the stack keeps running."""
    from services.runtime.backup import backup as write
    from services.runtime.backup import external_parts
    from tasks.core.console import console
    from tasks.core.settings import settings

    config = settings()
    target = (archive or Path(f"driftline-{datetime.now():%Y-%m-%dT%H%M%S}.tar.gz")).absolute()
    with console.status("packing ..."):
        count = write(config, target)
    console.print(f"wrote {target}: {count:,} files, {target.stat().st_size / 1e6:,.1f} MB")
    console.print("Not included: .env, cases and code (they are in git), and files that a run can rebuild.")
    _print_external_parts(external_parts(config))


def restore(archive: Archive) -> None:
    """Restore a backup into empty state and data folders at their original paths."""
    from services.runtime.backup import restore as restore_archive
    from tasks.core.console import console
    from tasks.core.settings import settings

    config = settings()
    with console.status("restoring ..."):
        facts = restore_archive(config, archive.absolute())
    console.print(
        f"restored to {config.state} and {config.data}: created {facts['made_at']}, commit {facts['commit'][:12]}"
    )
    _print_external_parts(facts["elsewhere"])
    console.print("Start the stack: driftline up")


def _print_external_parts(external_parts: dict[str, str]) -> None:
    from tasks.core.console import console

    for part, how in external_parts.items():
        console.print(f"Not included, because it is stored externally: {part}. To save it: {how}.")
