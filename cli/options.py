"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

CaseName = Annotated[str, typer.Argument(metavar="CASE", help="A folder under configs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Release = Annotated[str | None, typer.Option(help="Digest or a prefix of it. Default: the champion.")]
Profile = Annotated[str | None, typer.Option(help="A profile of the case.")]
