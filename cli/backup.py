"""`driftline backup` and `restore`: all that can't be made again, in one file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

Archive = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Of `driftline backup`.")]
NewArchive = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="A new file; unless it is named, driftline-DATE.tar.gz in this folder."),
]


def backup(archive: NewArchive = None) -> None:
    """Write all that can't be made again into one file, while the stack runs."""
    from services.runtime.backup import backup as write
    from services.runtime.backup import external_parts
    from tasks.core.console import console
    from tasks.core.settings import settings

    here = settings()
    to = (archive or Path(f"driftline-{datetime.now():%Y-%m-%dT%H%M%S}.tar.gz")).absolute()
    with console.status("packing ..."):
        count = write(here, to)
    console.print(f"wrote {to}: {count:,} files, {to.stat().st_size / 1e6:,.1f} MB")
    console.print("Not in it: .env, the cases and the code (they are in git), and what can be made again.")
    _tell(external_parts(here))


def restore(archive: Archive) -> None:
    """Bring a backup back into empty state and data folders, here or elsewhere."""
    from services.runtime.backup import restore as bring_back
    from tasks.core.console import console
    from tasks.core.settings import settings

    here = settings()
    with console.status("restoring ..."):
        facts = bring_back(here, archive.absolute())
    console.print(f"restored to {here.state} and {here.data}: made {facts['made_at']}, commit {facts['commit'][:12]}")
    _tell(facts["elsewhere"])
    console.print("Start it: driftline up")


def _tell(external_parts: dict[str, str]) -> None:
    from tasks.core.console import console

    for part, how in external_parts.items():
        console.print(f"Not in it, as it lives elsewhere: {part}. To save it: {how}.")
