"""Splits the Markdown text of a document into passages."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from tasks.core.config import digest_of
from tasks.knowledge.config import Splitter
from tasks.knowledge.documents.document import Document
from tasks.knowledge.documents.markdown import Section, sections
from tasks.knowledge.results import Passage

TokenCounter = Callable[[Sequence[str]], list[int]]
LINES, SENTENCES, WORDS = re.compile(r"\n"), re.compile(r"(?<=[.!?:;])\s+"), re.compile(r"\s+")


def split_document(document: Document, splitter: Splitter, count: TokenCounter) -> list[Passage]:
    """The passages of a document, in its order.

    A passage is a part of the text as it stands. It ends between blocks where it can, else between items of a list or
    rows of a table, else between lines, sentences or words. A table that is torn repeats its head.
    """
    parts = sections(document.text)
    if not splitter.headings and parts:
        parts = [_joined(parts)]
    passages: list[Passage] = []
    seen: dict[str, int] = {}
    for part in parts:
        path = part.path[1:] if part.path and part.path[0] == document.title else part.path
        heading = " > ".join(path)
        for text in _texts(document.text, part, splitter, count):
            place = digest_of([document.document_id, heading, text])
            seen[place] = seen.get(place, 0) + 1
            passages.append(
                Passage(
                    passage_id=digest_of([place, seen[place]])[:16],
                    document=document.document_id,
                    title=document.title,
                    heading=heading,
                    url=f"{document.url}#{part.anchor}" if document.url and part.anchor else document.url,
                    text=text,
                    labels=document.labels,
                )
            )
    return passages


def _texts(source: str, part: Section, splitter: Splitter, count: TokenCounter) -> Iterator[str]:
    previous = ""
    for start, end in _Cutter(source, part, splitter.tokens, count).spans():
        head = next((source[a:b] for a, b, c in part.tables if b <= start < c and b > a), "")
        text = (head + source[start:end]).strip("\n").rstrip()
        if not text.strip():
            continue
        overlap = _tail(previous, splitter.overlap, count)
        yield f"{overlap} {text}" if overlap else text
        previous = text


class _Cutter:
    """Cuts the text of a section into spans of at most `limit` tokens."""

    def __init__(self, source: str, part: Section, limit: int, count: TokenCounter) -> None:
        self._source, self._part, self._limit, self._count = source, part, limit, count

    def spans(self) -> list[tuple[int, int]]:
        return self._cut(self._part.start, self._part.end, 0)

    def _cut(self, start: int, end: int, level: int) -> list[tuple[int, int]]:
        if level > 4 or self._count([self._source[start:end]])[0] <= self._limit:
            return [(start, end)]
        pieces = self._pieces(start, end, level)
        sizes = self._count([self._source[a:b] for a, b in pieces])
        spans: list[tuple[int, int]] = []
        room = 0
        for (a, b), size in zip(pieces, sizes, strict=True):
            if size > self._limit:
                spans += self._cut(a, b, level + 1)
                room = 0
            elif spans and size <= room:
                spans[-1] = (spans[-1][0], b)
                room -= size
            else:
                spans.append((a, b))
                room = self._limit - size
        return spans

    def _pieces(self, start: int, end: int, level: int) -> list[tuple[int, int]]:
        if level < 2:
            cuts = self._part.cuts[level]
        else:
            pattern = (LINES, SENTENCES, WORDS)[level - 2]
            cuts = [start + match.end() for match in pattern.finditer(self._source[start:end])]
        places = sorted({start, *(cut for cut in cuts if start < cut < end), end})
        return list(pairwise(places))


def _joined(parts: list[Section]) -> Section:
    """All sections as one, whose headings are places to cut at."""
    blocks = [cut for part in parts for cut in (part.start, *part.cuts[0])]
    inner = [cut for part in parts for cut in part.cuts[1]]
    return Section((), "", 0, parts[-1].end, [blocks, inner], [table for part in parts for table in part.tables])


def _tail(text: str, tokens: int, count: TokenCounter) -> str:
    """The last whole words of a text, up to some tokens."""
    if not tokens or not text:
        return ""
    words = text.split()[-tokens:]
    sizes = count([" ".join(words[i:]) for i in range(len(words))])
    return " ".join(words[bisect_right([-size for size in sizes], -tokens - 1) :])
