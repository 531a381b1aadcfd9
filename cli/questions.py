"""Prints what is asked of a case's documents often, and answered badly."""

from __future__ import annotations

from tasks.core.console import console
from tasks.core.settings import settings
from tasks.monitor.language.questions import LIST


def print_open_questions(case: str) -> None:
    """Print the latest review of a case with documents."""
    path = settings().state / "monitor" / case / LIST
    if path.is_file():
        console.print(path.read_text(encoding="utf-8"), soft_wrap=True, markup=False)
