"""What an answer takes from its passages: links, code, statements, citations."""

from __future__ import annotations

import re

from tasks.guard.config import CitationRule, CodeRule, GroundednessRule, LinksRule
from tasks.guard.results import Finding, Span
from tasks.guard.subject import Subject
from tasks.language.groundedness import unsupported

_LINK = re.compile(
    r"(?i)\b(?:https?|ftp)://[^\s<>\"'`)\]]+|\bwww\.[^\s<>\"'`)\]]+|\b(?:javascript|data):[^\s<>\"'`)\]]+"
)
_HOST = re.compile(r"(?i)^(?:[a-z]+://)?(?:[^/@]*@)?([^/:?#]*)")
_FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})", re.MULTILINE)


class LinksCheck:
    """Finds links to other hosts than the allowed ones; with passages, those that stand in none of them."""

    def __init__(self, rule: LinksRule) -> None:
        self._allowed = tuple(host.lower() for host in rule.allowed)
        self.needs_passages = rule.from_passages

    def find(self, subject: Subject) -> Finding | None:
        together = "\n".join(subject.context.passages) if self.needs_passages else ""
        spans = tuple(
            Span("link", match.start(), match.start() + len(link))
            for match in _LINK.finditer(subject.text)
            if not self._is_allowed(link := match[0].rstrip(".,;:!?"), together)
        )
        return Finding(spans) if spans else None

    def _is_allowed(self, link: str, passages: str) -> bool:
        if link in passages:
            return True
        match = _HOST.match(link)
        host = match[1].lower() if match else ""
        return any(host == allowed or host.endswith(f".{allowed}") for allowed in self._allowed)


class CodeCheck:
    """Finds fenced code; with passages, code of which a line stands in none of them."""

    def __init__(self, rule: CodeRule) -> None:
        self.needs_passages = rule.from_passages

    def find(self, subject: Subject) -> Finding | None:
        known = {" ".join(line.split()) for passage in subject.context.passages for line in passage.splitlines()}
        spans = []
        for start, end in _fences(subject.text):
            lines = [" ".join(line.split()) for line in subject.text[start:end].splitlines()[1:]]
            strange = [line for line in lines if line and line.strip("`~") and line not in known]
            if strange or not self.needs_passages:
                spans.append(Span("code", start, end))
        return Finding(tuple(spans)) if spans else None


class GroundednessCheck:
    """Finds numbers, names, codes and commands of an answer that stand in no passage."""

    needs_passages = True

    def __init__(self, rule: GroundednessRule) -> None:
        pass

    def find(self, subject: Subject) -> Finding | None:
        lacking = unsupported(subject.text, subject.context.passages)
        return Finding(score=float(len(lacking)), note=f"{len(lacking)} in no passage") if lacking else None


class CitationCheck:
    """Finds an answer from passages that cites none of them."""

    needs_passages = True

    def __init__(self, rule: CitationRule) -> None:
        pass

    def find(self, subject: Subject) -> Finding | None:
        context = subject.context
        cited = context.citations or re.search(r"\[\d{1,2}\]", subject.text)
        return Finding(note="cites no passage") if context.passages and not cited else None


def _fences(text: str) -> list[tuple[int, int]]:
    """The fenced blocks of a text; one without an end goes to the end of the text."""
    blocks: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif match[1][0] == opened[1][0] and len(match[1]) >= len(opened[1]):
            blocks.append((opened.start(), match.end()))
            opened = None
    return [*blocks, (opened.start(), len(text))] if opened else blocks
