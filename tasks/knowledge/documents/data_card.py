"""The data card of a case's documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.display import escape_markdown
from tasks.data.results import Validation
from tasks.knowledge.documents.collect import Collected

MAX_WARNINGS = 50


def write_card(
    path: Path,
    about: Mapping[str, Any],
    collections: Mapping[str, Sequence[Collected]],
    *,
    others: Counter[str],
    validation: Validation,
) -> None:
    """Write the contents of the documents, as Markdown. others: number of files of other kinds, by suffix."""
    quarantined = ", ".join(f"{n} of {name}" for name, n in sorted(validation.quarantined.items())) or "none"
    left_out = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items())) or "none"
    masked = {name: sum((each.masked for each in rows), Counter()) for name, rows in collections.items()}
    parts = [
        f"# Documents of {about['case']}\n",
        *(f"- {name}: {value}" for name, value in about.items() if name != "case"),
        f"- quarantined: {quarantined}",
        f"- files of other kinds, left out: {left_out}",
        f"- expectations met: {validation.expectations}\n",
        *_table(
            ["", *collections],
            [
                ["documents", *map(len, collections.values())],
                ["characters", *(sum(len(e.document.text) for e in rows) for rows in collections.values())],
                ["labels", *(", ".join(rows[0].document.labels) if rows else "" for rows in collections.values())],
                ["last modified", *(_last(rows) for rows in collections.values())],
                ["masked", *(", ".join(f"{n} {k}" for k, n in sorted(c.items())) for c in masked.values())],
                ["places with personal data", *(sum(e.personal for e in rows) for rows in collections.values())],
            ],
        ),
        *(["## Warnings\n"] if validation.warnings else []),
        *(f"- {escape_markdown(sentence)}" for sentence in validation.warnings[:MAX_WARNINGS]),
        "",
        "## Documents\n",
        *_table(
            ["document", "title", "characters", "modified"],
            [
                [e.document.document_id, e.document.title, len(e.document.text), _date(e)]
                for rows in collections.values()
                for e in rows
            ],
        ),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [
        *("| " + " | ".join(escape_markdown(" ".join(str(v).split())) for v in line) + " |" for line in lines),
        "",
    ]


def _last(rows: Sequence[Collected]) -> str:
    return max((_date(each) for each in rows), default="")


def _date(collected: Collected) -> str:
    modified = collected.document.modified
    return f"{modified:%Y-%m-%d}" if modified else ""
