"""The profile of a table as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tasks.core.display import one_line
from tasks.core.files import write_text
from tasks.data.profile.results import ColumnProfile, TableProfile

STYLE = """
:root { --ink: #1f2328; --dim: #6b7280; --line: #e5e7eb; --fill: #5b8def; --soft: #eef2f9; --warn: #b3541e;
  --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --dim: #9aa1ac; --line: #2d3138; --fill: #7aa2f7;
  --soft: #20242c; --warn: #e0955e; --page: #14171c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 76rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.dim { color: var(--dim); } .warn { color: var(--warn); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--soft); border-radius: .5rem; padding: .55rem 1rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: .85rem; color: var(--dim); }
thead th { position: sticky; top: 0; background: var(--page); }
td b { overflow-wrap: anywhere; } .decisions td:not(:last-child) { white-space: nowrap; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.values { font-size: .87rem; overflow-wrap: anywhere; max-width: 26rem; }
svg { display: block; } rect { fill: var(--fill); }
.bar { background: var(--soft); border-radius: 3px; width: 5.5rem; height: .5rem; margin-top: .2rem; }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--fill); }
.share { display: block; height: .45rem; margin-bottom: .25rem; background: var(--fill); border-radius: 2px; }
"""
Decision = tuple[str, str, str]  # its group, the column, and the reason
SHOWN = 5  # values of a column
HIDDEN = "not shown: personal data"


def write_page(profile: TableProfile, decisions: Sequence[Decision], path: Path) -> Path:
    """Write the page; returns its path."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Profile of {_text(profile.name)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f'<h1>{_text(profile.name)}</h1><p class="dim">Counts are over all rows; shapes and scores over '
        f"{profile.sampled:,} of them.</p>",
        _tiles(profile),
        *_decisions(decisions),
        "<h2>Columns</h2>",
        _columns(profile),
        "</body></html>\n",
    ]
    return write_text(path, "\n".join(parts))


def facts(profile: TableProfile) -> list[tuple[str, str]]:
    """The table in a few figures, each with its name."""
    cells = profile.rows * len(profile.columns) or 1
    missing = sum(column.empty for column in profile.columns) / cells
    return [
        ("rows", f"{profile.rows:,}"),
        ("columns", f"{len(profile.columns):,}"),
        ("empty cells", f"{missing:.1%}"),
        ("repeated rows", f"{profile.duplicates:,}"),
        *([("target", profile.target)] if profile.target else []),
    ]


def values_of(column: ColumnProfile) -> str:
    """What stands in a column, in a few words: its most frequent values, its range, or examples."""
    if column.personal:
        return HIDDEN
    if column.counts and not column.fractions:
        shown = [f"{value} ({n:,})" for value, n in list(column.counts.items())[:SHOWN]]
        return ", ".join(shown) + (f" and {len(column.counts) - SHOWN} more" if len(column.counts) > SHOWN else "")
    if column.least is not None:
        mean = f", mean {number(column.mean)}" if column.mean is not None else ""
        return f"{number(column.least)} to {number(column.most)}{mean}"
    lengths = f"{column.words:.0f} words, {column.longest:,} characters at most" if column.words >= 2 else ""
    return "; ".join(filter(None, [", ".join(text[:40] for text in column.examples[:3]), lengths]))


def number(value: Any) -> str:
    """A number or a moment, short."""
    return (
        f"{value:,.6g}"
        if isinstance(value, int | float)
        else str(value).removesuffix("+00:00").removesuffix(" 00:00:00")
    )


def _text(text: str) -> str:
    return escape(one_line(text))


def _tiles(profile: TableProfile) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{_text(value)}</b><span>{name}</span></div>' for name, value in facts(profile)
    )
    return f'<div class="tiles">{tiles}</div>'


def _decisions(decisions: Sequence[Decision]) -> Iterator[str]:
    if decisions:
        yield '<h2>Decisions</h2><table class="decisions">'
        yield "<thead><tr><th>what</th><th>column</th><th>reason</th></tr></thead><tbody>"
        for group, name, why in decisions:
            style = ' class="warn"' if group == "suspected" else ""
            yield f"<tr><td{style}>{_text(group)}</td><td><b>{_text(name)}</b></td><td>{_text(why)}</td></tr>"
        yield "</tbody></table>"


def _columns(profile: TableProfile) -> str:
    alone = f"<th>{profile.metric} alone</th>" if profile.metric else ""
    head = f"<th>column</th><th>type</th><th>missing</th><th>distinct</th><th>shape</th><th>values</th>{alone}"
    rows = "\n".join(_row(column, profile) for column in profile.columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"


def _row(column: ColumnProfile, profile: TableProfile) -> str:
    kind = column.read_type + (f" <span class='dim'>{_text(column.reading.format)}</span>" if column.reading else "")
    words = column.reading.words if column.reading else {}
    share = column.empty / profile.rows if profile.rows else 0.0
    missing = f"{share:.1%}{_bar(share)}" if column.empty else "-"
    missing += "".join(f'<span class="dim">{_text(repr(word))} {n:,} </span>' for word, n in words.items())
    personal = f'<br><span class="warn">{_text(", ".join(column.personal))}</span>' if column.personal else ""
    distinct = f"{column.distinct:,}" + ("<br><span class='dim'>unique</span>" if column.unique else "")
    cells = [
        f"<b>{_text(column.name)}</b>{personal}",
        kind,
        f'<span class="number">{missing}</span>',
        f'<span class="number">{distinct}</span>',
        _shape(column),
        f'<div class="values">{_text(values_of(column))}</div>',
    ]
    if profile.metric:
        cells.append("" if column.alone is None else _score(column.alone, 0.5 if profile.metric == "auc" else 0.0))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _score(score: float, chance: float) -> str:
    return f'<span class="number">{score:.3f}</span>{_bar((score - chance) / (1 - chance))}'


def _bar(share: float) -> str:
    return f'<div class="bar"><i style="width:{max(0.0, min(1.0, share)):.0%}"></i></div>'


def _shape(column: ColumnProfile) -> str:
    """A histogram of numbers and moments; of few values, their shares."""
    if any(column.bins):
        top, width = max(*column.bins, 1), 120 / len(column.bins)
        heights = [32 * n / top for n in column.bins]
        bars = "".join(
            f'<rect x="{i * width:.1f}" y="{32 - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"/>'
            for i, height in enumerate(heights)
            if height
        )
        return f'<svg width="120" height="32" role="img" aria-label="histogram">{bars}</svg>'
    if column.counts and not column.personal:
        most = max(column.counts.values())
        return "".join(
            f'<span class="share" style="width:{6 * n / most:.2f}rem"></span>'
            for n in list(column.counts.values())[:SHOWN]
        )
    return ""
