"""Reads one file as a document: Markdown, text, HTML or PDF."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tasks.core.untrusted import MB, reading_untrusted
from tasks.core.yaml_file import load_yaml
from tasks.knowledge.documents import html_text, pdf_text
from tasks.knowledge.documents.markdown import FRONT_MATTER, first_heading, without_comments

MAX_BYTES = 20 * MB  # of a file
MAX_CHARACTERS = 2_000_000  # of its text
MARKDOWN, HTML, PDF = (".md", ".markdown", ".txt"), (".html", ".htm"), (".pdf",)
SUFFIXES = (*MARKDOWN, *HTML, *PDF)
CHANGED = ("modified", "updated", "last_modified", "lastmod", "date")  # keys of a front matter, best first


@dataclass(frozen=True)
class FileText:
    """The text of a file, and what the file says of itself."""

    title: str  # empty: it has none
    text: str  # Markdown
    modified: datetime | None = None


def read_file(path: Path) -> FileText:
    """Raises: DataError when the file is too large, damaged, encrypted, or not what its name says."""
    allowed = f"{', '.join(SUFFIXES)} of at most {MAX_BYTES // MB} MB and {MAX_CHARACTERS:,} characters"
    with reading_untrusted("A document can't be read.", path, allowed=allowed, todo="Correct or remove the file."):
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size / MB:,.1f} MB; at most {MAX_BYTES // MB} MB")
        text = _read(path, path.suffix.lower())
        if len(text.text) > MAX_CHARACTERS:
            raise ValueError(f"{len(text.text):,} characters; at most {MAX_CHARACTERS:,}")
    return text


def _read(path: Path, suffix: str) -> FileText:
    if suffix in PDF:
        pdf = pdf_text.read_pdf(path)
        return FileText(pdf.title, pdf.text, as_utc(pdf.modified))
    content = path.read_bytes()
    if b"\x00" in content:
        raise ValueError("it is binary: it has zero bytes")
    if suffix in HTML:
        page = html_text.parse(content)
        modified = as_utc(html_text.modified_of(page))
        return FileText(html_text.title_of(page), html_text.to_markdown(page), modified)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {content[error.start]:#04x} at {error.start:,}") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    front = _front_matter(text)
    text = without_comments(FRONT_MATTER.sub("", text, count=1) if front else text)
    modified = next((moment for key in CHANGED if (moment := as_utc(front.get(key)))), None)
    return FileText(str(front.get("title") or first_heading(text)), text, modified)


def _front_matter(text: str) -> dict[str, Any]:
    """The YAML before a Markdown text; empty when there is none."""
    match = FRONT_MATTER.match(text)
    with contextlib.suppress(ValueError):
        values = load_yaml(match[1]) if match else None
        return values if isinstance(values, dict) else {}
    return {}


def as_utc(value: object) -> datetime | None:
    """A date or a moment in UTC; None for what is neither."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return as_utc(datetime.fromisoformat(value.strip()))
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        with contextlib.suppress(OverflowError, ValueError):
            return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    return None
