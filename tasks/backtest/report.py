"""The report of a backtest: lines for a terminal, and a page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from tasks.backtest.chart import draw_gains, draw_lines
from tasks.backtest.policies import BASELINE
from tasks.backtest.results import BacktestResult
from tasks.core.files import write_text
from tasks.core.html_page import html_page, html_table
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER

Figures = Mapping[str, Any]
STYLE = """
.promoted { color: var(--good); } .rejected { color: var(--bad); }
"""


def write(figures: Figures, folder: Path) -> BacktestResult:
    """Write page and JSON into the folder, named by period and profile."""
    profile = f"-{figures['profile']}" if figures["profile"] else ""
    name = f"{figures['from']}-to-{figures['to']}{profile}"
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    return BacktestResult(
        figures=dict(figures),
        page=write_text(folder / f"{name}.html", page(figures)),
        json_file=write_text(folder / f"{name}.json", text),
    )


def lines(figures: Figures) -> str:
    """A line a policy."""
    head, rows = _summary(figures)
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def page(figures: Figures) -> str:
    """The whole report as HTML."""
    months, policies = list(figures["months"]), list(figures["policies"])
    months_of = {policy: [figures["months"][month][policy] for month in months] for policy in policies}
    marks = {
        p: [(i, month["outcome"]) for i, month in enumerate(months_of[p]) if month["outcome"] != "kept"]
        for p in months_of
    }
    charts = [
        draw_lines(
            _titled(name), months, {policy: [month[name] for month in months_of[policy]] for policy in months_of}, marks
        )
        for name in figures["metrics"]
    ]
    others = {policy: [month["gain"] for month in months_of[policy]] for policy in months_of if policy != BASELINE}
    if others and BASELINE in months_of:
        title = f"gain over {BASELINE} ({figures['loss']}), with {figures['confidence']:.0%} interval"
        charts.append(draw_gains(title, months, others))
    head, rows = _summary(figures)
    whose = f"{figures['case']}, {figures['from']} to {figures['to']}"
    commit = f"commit {figures['commit'][:12]}{' with changes' if figures['dirty'] else ''}"
    commit += f", profile {figures['profile']}" if figures["profile"] else ""
    return html_page(
        f"Replay of {whose}",
        f'<p class="dim">{escape(commit)}</p>',
        f"<p>{_how_to_read(figures)}</p>",
        _table(head, rows),
        *charts,
        "<h2>Month by month</h2>",
        _table(*_by_month(figures, months_of)),
        "<h2>What each decision saw</h2>",
        *(_decisions(policy, dict(zip(months, months_of[policy], strict=True))) for policy in months_of),
        style=STYLE,
    )


def _titled(metric: str) -> str:
    return f"{metric} by month, {'higher' if metric in HIGHER_IS_BETTER else 'lower'} is better"


def _how_to_read(figures: Figures) -> str:
    return (
        "Each month is scored with the release that stood in it, on the examples whose outcome was known at its end: "
        f"the same ones for every policy. A gain is how much lower the mean {figures['loss']} is than without "
        f"retraining, with the {figures['confidence']:.0%} interval of a paired bootstrap over days. The cost counts "
        "the seconds of each retraining (features, training, judging) at the case's price of a machine hour."
    )


def _summary(figures: Figures) -> tuple[list[str], list[list[str]]]:
    means = [f"{name}_mean" for name in figures["metrics"]]
    head = ["policy", *(name.replace("_", " ") for name in means)]
    head += ["retrains", "promoted", "rejected", "cost", f"gain over {BASELINE}", "from", "to"]
    rows = []
    for policy, found in figures["policies"].items():
        gain = (found["gain"] or {}) if policy != BASELINE else {}
        counts = [str(found[name]) for name in ("retrains", "promotions", "rejections")]
        shown = [_signed(gain.get(name)) for name in ("mean", "low", "high")]
        rows.append([policy, *(_number(found[name]) for name in means), *counts, f"{found['cost']:.4f}", *shown])
    return head, rows


def _by_month(figures: Figures, months_of: Mapping[str, list[Figures]]) -> tuple[list[str], list[list[str]]]:
    head = ["month", "rows", *(f"{name} {policy}" for policy in months_of for name in figures["metrics"])]
    rows = []
    for i, month in enumerate(figures["months"]):
        values = [_number(months_of[policy][i][name]) for policy in months_of for name in figures["metrics"]]
        rows.append([month, f"{next(iter(months_of.values()))[i]['rows']:,}", *values])
    return head, rows


def _table(head: list[str], rows: list[list[str]]) -> str:
    return html_table(head, [[escape(text) for text in row] for row in rows])


def _decisions(policy: str, months: Mapping[str, Figures]) -> str:
    """A policy's decisions, folded: the line shows the outcome, the details the reasons."""
    parts = [f"<h3>{escape(policy)}</h3>"]
    for month, values in months.items():
        if not values["decision"]:
            continue
        outcome = values["outcome"]
        became = f' &rarr; <span class="{outcome.split()[0]}">{escape(outcome)}</span>' if outcome != "kept" else ""
        seen = [escape(reason) for reason in values["decision"]["reasons"]]
        seen += [f'<span class="rejected">{escape(sentence)}</span>' for sentence in values["failed"]]
        parts.append(
            f"<details><summary>end of {month}: {escape(values['decision']['action'])}{became} "
            f'<span class="dim">of the release of {values["released"]}, {values["release"][:12]}</span></summary>'
            f"<ul>{''.join(f'<li>{text}</li>' for text in seen)}</ul>"
            f"<code>evidence {values['decision']['evidence']}</code></details>"
        )
    return "\n".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}" if abs(value) < 1000 else f"{value:+,.1f}"
