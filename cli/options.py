"""Arguments and options that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

CaseName = Annotated[str, typer.Argument(metavar="CASE", help="A folder under configs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
