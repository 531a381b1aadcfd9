"""A verdict in words: a Markdown table for reports, aligned lines for a terminal."""

from __future__ import annotations

from tasks.evaluate.results import Criterion, Verdict


def explain(verdict: Verdict) -> str:
    """The criteria as a Markdown table, which also reads well as plain text; the decision stands above it."""
    head = ("", "criterion", "observed", "required", "note")
    table = [head, *((_mark(c), c.name, observed(c), c.required, c.note) for c in verdict.criteria)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    against = f"against champion {verdict.champion[:12]}" if verdict.champion else "there is no champion yet"
    return "\n".join([f"verdict: {verdict.decision} ({against})", "", lines[0], rule, *lines[1:]])


def lines(verdict: Verdict) -> str:
    """The decision and one line a criterion."""
    width = max(len(c.name) for c in verdict.criteria)
    told = [
        f"  {_mark(c):<4} {c.name:<{width}}  {observed(c):>9}  {c.required}{f'  ({c.note})' if c.note else ''}"
        for c in verdict.criteria
    ]
    return "\n".join([f"verdict: {verdict.decision}", *told])


def observed(criterion: Criterion) -> str:
    return "-" if criterion.observed is None else f"{criterion.observed:.4g}"


def _mark(criterion: Criterion) -> str:
    return "ok" if criterion.passed else ("FAIL" if criterion.observed is not None else "n/a")
