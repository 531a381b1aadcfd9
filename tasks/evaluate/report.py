"""A verdict as text: a Markdown table for reports, aligned lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    data = [escape_markdown(verdict.data), ""] if verdict.data else []
    head_lines = [f"verdict: {verdict.decision} ({against})", "", *data]
    return "\n".join([*head_lines, lines[0], rule, *lines[1:], *_beside(verdict)])


def sides_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The metrics of a table's candidate and of its baselines, by heading; empty without baselines."""
    baselines = metrics.get("baselines", {})
    if "dummy" not in baselines:
        return {}
    named = {"plain boosting": "plain", "dummy": "dummy"}
    return {
        "candidate": metrics["overall"],
        **{heading: baselines[name] for heading, name in named.items() if name in baselines},
    }


def compared(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a metric: its name and its value on each side."""
    sides = sides_of(metrics)
    names = [name for name in metrics["overall"] if name != "rows"]
    return [(name, *(f"{side[name]:.4g}" if name in side else "-" for side in sides.values())) for name in names]


def _beside(verdict: Verdict) -> list[str]:
    """A table of the metrics beside those of the baselines."""
    sides = sides_of(verdict.metrics)
    tables = [(sides, compared(verdict.metrics))] if sides else []
    if mitigation := verdict.metrics.get("mitigation"):
        tables.append((mitigation, mitigated(mitigation)))
    found: list[str] = []
    for names, rows in tables:
        found += ["", f"| metric | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        found += [f"| {' | '.join(row)} |" for row in rows]
    return found


def mitigated(sides: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A row a metric or disparity: its name, and its value with and without the mitigation."""
    names = dict.fromkeys(name for side in sides.values() for name in side)
    return [(name, *(f"{side[name]:.4g}" if name in side else "-" for side in sides.values())) for name in names]


def lines(verdict: Verdict) -> str:
    """The decision and one line a criterion."""
    named = [(one_line(c.name), f"  ({one_line(c.note)})" if c.note else "", c) for c in verdict.criteria]
    width = max(len(name) for name, _, _ in named)
    criteria = [f"  {_mark(c):<4} {name:<{width}}  {observed(c):>9}  {c.required}{note}" for name, note, c in named]
    data = [f"  {one_line(verdict.data)}"] if verdict.data else []
    return "\n".join([f"verdict: {verdict.decision}", *data, *criteria, *_columns(verdict)])


def _columns(verdict: Verdict) -> list[str]:
    sides = sides_of(verdict.metrics)
    table = [("metric", *sides), *compared(verdict.metrics)] if sides else []
    if mitigation := verdict.metrics.get("mitigation"):
        width = max(len(name) for name in mitigation)
        more = [("", *mitigation), *mitigated(mitigation)]
        found = [f"  {name:<34}" + "".join(f"{value:>{width + 2}}" for value in values) for name, *values in more]
        return [*_aligned(table), *found]
    return _aligned(table)


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"  {name:<18}" + "".join(f"{value:>16}" for value in values) for name, *values in table]


def observed(criterion: Criterion) -> str:
    return "-" if criterion.observed is None else f"{criterion.observed:.4g}"


def _mark(criterion: Criterion) -> str:
    if criterion.passed:
        return "ok"
    if not criterion.blocking:
        return "warn"
    return "FAIL" if criterion.observed is not None and criterion.conclusive else "n/a"
