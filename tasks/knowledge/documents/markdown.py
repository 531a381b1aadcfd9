"""The structure of a Markdown text: its headings with anchors, and where it may be cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
EXPLICIT = re.compile(r"\s*\{#([^{}\s]+)\}\s*$")  # an anchor that a heading names, as Pandoc writes it
HEADING_PARTS = ("text", "code_inline", "softbreak", "hardbreak", "image", "text_special")
LINK = re.compile(r"!?\[([^\]]*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)")
EMPHASIS = re.compile(r"`+|\*\*|(?<!\w)[*](?=\S)|(?<=\S)[*](?!\w)")
BLOCK_MARKS = re.compile(  # quotes, headings, bullets, rules and tables
    r"^[ \t]*(?:[>#|]|\|?[ \t:|-]{3,}$)+[ \t]*|[ \t]*\|[ \t]*|^[ \t]*[-*+][ \t]+"
    r"|</?(?:a|b|br|code|details|div|em|i|img|kbd|p|pre|span|strong|sub|summary|sup)\b[^<>]*>",
    re.MULTILINE,
)


@dataclass
class Section:
    """A heading with the text below it, up to the next heading."""

    path: tuple[str, ...]  # its heading and those above it; empty before the first heading
    anchor: str  # as GitHub makes it; empty before the first heading
    start: int  # place of the text in the source, without the heading's own line
    end: int
    cuts: list[list[int]] = field(default_factory=list)  # places to cut at, best first: blocks; items and rows
    tables: list[tuple[int, int, int]] = field(default_factory=list)  # start, end of the head, end


def sections(text: str) -> list[Section]:
    """The sections of a text, in order; those without text are left out."""
    starts = _line_starts(text)
    tokens = _parser().parse(text)
    parts = [Section((), "", 0, len(text), [[], []])]
    path: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if token.map is None:
            continue
        first, last = (starts[min(line, len(starts) - 1)] for line in token.map)
        if token.type == "heading_open" and token.level == 0:
            content, depth = _heading(tokens[i + 1]), int(token.tag[1])
            explicit = EXPLICIT.search(content)
            name = EXPLICIT.sub("", content)
            path = [*((d, n) for d, n in path if d < depth), (depth, name)]
            parts[-1].end = first
            parts.append(
                Section(
                    tuple(n for _, n in path),
                    explicit[1] if explicit else _anchor(name, seen),
                    last,
                    len(text),
                    [[], []],
                )
            )
        elif token.nesting >= 0 and token.type != "inline":
            parts[-1].cuts[0 if token.level == 0 else 1].append(first)
            if token.type == "table_open":
                parts[-1].tables.append((first, _table_head(tokens[i:], starts), last))
    return [part for part in parts if text[part.start : part.end].strip()]


def without_comments(text: str) -> str:
    """A text without HTML's comments, which no reader sees; its other lines stay as they are."""
    if "<!--" not in text:
        return text
    starts = _line_starts(text)
    spans = [token.map for token in _parser().parse(text) if token.type == "html_block" and token.map]
    for first, last in reversed(spans):
        a, b = starts[first], starts[min(last, len(starts) - 1)]
        if (block := text[a:b].strip()).startswith("<!--") and block.endswith("-->"):
            text = text[:a] + text[b:]
    return text


def plain(text: str) -> str:
    """A text without Markdown's marks and the targets of links: what a reader sees."""
    return " ".join(EMPHASIS.sub("", BLOCK_MARKS.sub(" ", LINK.sub(r"\1", text))).split())


def first_heading(text: str) -> str:
    """The text of the first heading; empty when there is none."""
    tokens = _parser().parse(text)
    return next(
        (plain(EXPLICIT.sub("", tokens[i + 1].content)) for i, t in enumerate(tokens) if t.type == "heading_open"), ""
    )


def _heading(inline: Token) -> str:
    """The text of a heading, without its marks."""
    text = "".join(each.content or " " for each in inline.children or () if each.type in HEADING_PARTS)
    return " ".join(text.split())


def _anchor(heading: str, seen: dict[str, int]) -> str:
    slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    count = seen.get(slug, 0)
    seen[slug] = count + 1
    return f"{slug}-{count}" if count else slug


def _table_head(tokens: Sequence[Token], starts: list[int]) -> int:
    body = next((t for t in tokens if t.type == "tbody_open" and t.map), None)
    last = body.map[0] if body and body.map else 0
    return starts[last] if last else 0


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


def _line_starts(text: str) -> list[int]:
    """The place of each line, and of the end; lines as markdown-it counts them."""
    return [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
