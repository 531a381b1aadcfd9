"""The text of a PDF file, page by page."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAX_PAGES = 2_000


@dataclass(frozen=True)
class PdfText:
    """What is read of a PDF."""

    title: str
    text: str  # Markdown: a heading for each page
    modified: datetime | None


def read_pdf(path: Path) -> PdfText:
    """Raises: ValueError for an encrypted file, or one without text; whatever pypdf raises for a damaged one."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs each small fault that it mends
    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("it is encrypted with a password")
    if len(reader.pages) > MAX_PAGES:
        raise ValueError(f"{len(reader.pages):,} pages; at most {MAX_PAGES:,}")
    pages = [_clean(page.extract_text()) for page in reader.pages]
    if not any(pages):
        raise ValueError(f"no text on its {len(pages):,} pages, which may be scanned images")
    text = "".join(f"## Page {n} {{#page={n}}}\n\n{page}\n\n" for n, page in enumerate(pages, 1) if page)
    title, modified = "", None
    with contextlib.suppress(Exception):  # a PDF without readable metadata is still a document
        about = reader.metadata
        title = " ".join(str(about.title or "").split()) if about else ""
        modified = about.modification_date if about else None
    return PdfText(title, text, modified)


def _clean(page: str) -> str:
    """A page's text: words divided at the end of a line are joined, and no line is read as Markdown."""
    text = re.sub(r"(?<=[a-z])[-\u00ad]\n(?=[a-z])", "", page.replace("\x00", ""))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(re.sub(r"^(#{1,6}|={3,}|-{3,}|`{3,}|~{3,}|>)", r"\\\1", line) for line in lines).strip()
