"""The terminal console: strings are plain text, never markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from tasks.core.display import escape_terminal, one_line


class Terminal(Console):
    """A console that treats every string as plain text; styles need rich's Text, see `styled`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_terminal(text), **{**options, "markup": False, "emoji": False})

    def status(self, status: RenderableType, **options: Any) -> Status:
        return super().status(Text(one_line(status)) if isinstance(status, str) else status, **options)


class PlainTable(Table):
    """A table without borders; each cell is one line."""

    def __init__(self, *columns: str, **options: Any) -> None:
        super().__init__(*columns, **{"box": None, "pad_edge": False, "header_style": "dim", **options})

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(one_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def styled(text: str, style: str) -> Text:
    return Text(escape_terminal(text), style)


console = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
if not console.is_terminal:
    console.width = 160  # a file or a pipe has no width that output must fit
