"""A verdict as text: a Markdown table for reports, aligned lines for a terminal."""

from __future__ import annotations

from tasks.core.display import escape_markdown, one_line
from tasks.evaluate.results import Criterion, Verdict


def explain(verdict: Verdict) -> str:
    """The criteria as a Markdown table, which also reads well as plain text; the decision stands above it."""
    head = ("", "criterion", "observed", "required", "note")
    table = [
        head,
        *(
            (_mark(c), escape_markdown(c.name), observed(c), escape_markdown(c.required), escape_markdown(c.note))
            for c in verdict.criteria
        ),
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    against = f"against champion {verdict.champion[:12]}" if verdict.champion else "there is no champion yet"
    return "\n".join([f"verdict: {verdict.decision} ({against})", "", lines[0], rule, *lines[1:]])


def lines(verdict: Verdict) -> str:
    """The decision and one line a criterion."""
    named = [(one_line(c.name), f"  ({one_line(c.note)})" if c.note else "", c) for c in verdict.criteria]
    width = max(len(name) for name, _, _ in named)
    criteria = [f"  {_mark(c):<4} {name:<{width}}  {observed(c):>9}  {c.required}{note}" for name, note, c in named]
    return "\n".join([f"verdict: {verdict.decision}", *criteria])


def observed(criterion: Criterion) -> str:
    return "-" if criterion.observed is None else f"{criterion.observed:.4g}"


def _mark(criterion: Criterion) -> str:
    return "ok" if criterion.passed else ("FAIL" if criterion.observed is not None else "n/a")
