"""The text of an HTML page as Markdown: its main part, with headings, lists, tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

# words of tags
LEFT_OUT = "script style noscript template svg iframe form button select input nav footer aside"
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = """
address article blockquote body center dd details div dl dt fieldset figcaption figure header hr html li main ol p pre
section summary table ul h1 h2 h3 h4 h5 h6
"""
PERMALINK = re.compile(r"[\s¶#🔗]+$")
DATES = ("article:modified_time", "last-modified", "dcterms.modified", "date")  # of <meta>, best first


def parse(content: bytes) -> BeautifulSoup:
    """A page, its encoding as it declares it."""
    from bs4 import BeautifulSoup, Comment

    page = BeautifulSoup(content, "html.parser")
    for tag in page(LEFT_OUT.split()):
        tag.decompose()
    for comment in page.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    return page


def title_of(page: BeautifulSoup) -> str:
    """The first heading of a page, else its title; empty when it has neither."""
    tag = page.find("h1") or page.find("title")
    return PERMALINK.sub("", _inline(tag)) if tag else ""


def modified_of(page: BeautifulSoup) -> str:
    """The date that a page states of itself; empty when it states none."""
    for name in DATES:
        for key in ("property", "name", "http-equiv"):
            if (tag := page.find("meta", attrs={key: re.compile(f"^{re.escape(name)}$", re.IGNORECASE)})) is not None:
                return str(tag.get("content") or "")
    return ""


def to_markdown(page: BeautifulSoup) -> str:
    """The main part of a page as Markdown, without what surrounds it: menus, footers, forms."""
    main = page.find("main") or page.find("article") or page.body or page
    return "\n\n".join(block for block in _blocks(main) if block.strip()) + "\n"


def _blocks(node: Tag) -> Iterator[str]:
    from bs4 import Tag

    blocks = BLOCKS.split()
    line = ""
    for child in node.children:
        if not isinstance(child, Tag):
            line += str(child)
        elif child.name in blocks or child.find(blocks) is not None:
            yield _paragraph(line)
            line = ""
            yield from _block(child)
        elif child.name == "br":
            line += " "
        else:
            line += _inline(child, collapse=False)
    yield _paragraph(line)


def _block(tag: Tag) -> Iterator[str]:
    if tag.name in HEADINGS:
        text, anchor = PERMALINK.sub("", _inline(tag)), _anchor(tag)
        if text:
            yield f"{'#' * int(tag.name[1])} {text}" + (f" {{#{anchor}}}" if anchor else "")
    elif tag.name == "pre":
        text = tag.get_text().strip("\n")
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        yield f"{fence}\n{text}\n{fence}"
    elif tag.name in ("ul", "ol"):
        items = tag.find_all("li", recursive=False)
        yield "\n".join(_item(item, "-" if tag.name == "ul" else f"{n}.") for n, item in enumerate(items, 1))
    elif tag.name == "table":
        yield _table(tag)
    elif tag.name == "dt":
        yield f"**{_inline(tag)}**"
    elif tag.name != "hr":
        yield from _blocks(tag)


def _item(item: Tag, mark: str) -> str:
    text = "\n".join(block for block in _blocks(item) if block.strip())
    return f"{mark} " + text.replace("\n", "\n" + " " * (len(mark) + 1))


def _table(table: Tag) -> str:
    rows = [
        [_inline(cell).replace("|", "\\|") for cell in row.find_all(["th", "td"], recursive=False)]
        for row in table.find_all("tr")
    ]
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    width = max(map(len, rows))
    lines = ["| " + " | ".join([*row, *[""] * (width - len(row))]) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * width, *lines[1:]])


def _anchor(heading: Tag) -> str:
    """The id of a heading, or of the section that begins with it."""
    inner = heading.find(id=True)
    parent = heading.parent
    outer = parent.get("id") if parent and parent.name in ("section", "div", "article") else None
    return str(heading.get("id") or (inner.get("id") if inner else None) or outer or "")


def _inline(tag: Tag, *, collapse: bool = True) -> str:
    from bs4 import Tag

    if tag.name in ("code", "kbd", "samp", "tt"):
        return f"`{' '.join(tag.get_text().split())}`"
    text = "".join(_inline(c, collapse=False) if isinstance(c, Tag) else str(c) for c in tag.children)
    return " ".join(text.split()) if collapse else text


def _paragraph(line: str) -> str:
    """A line of text, so that it is not read as a heading or a list."""
    return re.sub(r"^(#{1,6}|[-*+>]|\d+[.)])(?=\s)", r"\\\1", " ".join(line.split()))
