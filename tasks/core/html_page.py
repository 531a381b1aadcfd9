"""A report as one HTML page that needs no other file: its frame, its look and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root { --ink: #1f2328; --dim: #6b7280; --line: #e5e7eb; --fill: #5b8def; --soft: #eef2f9; --warn: #b3541e;
  --bad: #b3261e; --good: #24753a; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --dim: #9aa1ac; --line: #2d3138; --fill: #7aa2f7;
  --soft: #20242c; --warn: #e0955e; --bad: #f2887f; --good: #7cc78f; --page: #14171c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 64rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; } p { margin: .4rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { text-align: right;
  padding: .3rem 0 .3rem 1.4rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; font-size: .85rem; color: var(--dim); } th:first-child, td:first-child { text-align: left;
  padding-left: 0; } td.text, th.text { text-align: left; overflow-wrap: anywhere; }
.dim, code { color: var(--dim); font-size: .87em; } .warn { color: var(--warn); } .bad { color: var(--bad); }
.good { color: var(--good); } ul { margin: .3rem 0; padding-left: 1.3rem; } li { margin: .2rem 0; }
details { margin: .5rem 0; } summary { cursor: pointer; } svg { display: block; max-width: 100%; height: auto; }
"""


def html_page(title: str, *parts: str, style: str = "") -> str:
    """The page around its parts, which are HTML; the title is text, and the page's first heading."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Sequence[int] = ()) -> str:
    """A table of HTML cells; `head` is text, and `texts` are the numbers of the columns with text, not figures."""
    kinds = [' class="text"' if number in texts else "" for number in range(len(head))]
    cells = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
