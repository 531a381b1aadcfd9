"""The report of a search: lines for a terminal, and a page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tasks.core.files import write_text
from tasks.core.html_page import html_page, html_table
from tasks.search.results import SearchResult, shown_value

SHOWN = 8  # of the best trials, and of the choices that mattered
WIDTH, HEIGHT, MARGIN = 640, 220, 36


def front_rows(result: SearchResult) -> list[list[str]]:
    """The case as it is, and the front: trial, arm, metric, speed, cost of a call, seconds to measure, note."""
    numbers = [number for number in result.front if number != 0]
    rows = []
    for number in [0, *numbers]:
        trial = result.trial(number)
        notes = ["the case as it is"] if number == 0 else []
        notes += ["chosen"] if number == result.chosen else []
        notes += ["knee"] if number == result.knee else []
        cost = f"{trial.call_cost:.2g}" if trial.call_cost else ""
        speed = f"{1000 * trial.call_seconds:.2f}" if trial.call_seconds else ""
        value = shown_value(result.metric, trial.loss)
        rows.append([str(number), trial.arm, value, speed, cost, f"{trial.seconds:.1f}", ", ".join(notes)])
    return rows


FRONT_HEAD = ("trial", "arm", "metric", "ms a call", "cost a call", "seconds", "")


def summary(result: SearchResult) -> list[str]:
    """What a person must know, a line each."""
    states = [trial.state for trial in result.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    spent = f"{result.seconds:.0f} s"
    spent += f", {result.calls:,} calls" if result.calls else ""
    spent += f", {result.money:.4f} in money" if result.money else ""
    lines = [f"{len(result.trials)} trials ({counts}); spent {spent} of {result.budget}; stopped: {result.stopped}"]
    if result.chosen == 0:
        lines.append(f"No trial was better than the case as it is, on {result.examples:,} examples.")
        return lines
    lines.append(f"trial {result.chosen} against the case as it is: {result.comparison}")
    if not result.is_better:
        lines.append(
            "The best of so many may look as good by chance: more budget, or more data, may show it to be better."
        )
    if result.optimism:
        luck = result.optimism
        value, corrected = (shown_value(result.metric, each) for each in (luck.loss, luck.corrected))
        low, high = sorted(shown_value(result.metric, each) for each in (luck.low, luck.high))
        lines.append(
            f"{result.metric} {value} is that of the best of {sum(state == 'complete' for state in states)}: "
            f"expect about {corrected} ({low} to {high}) of new examples"
        )
    return lines


def write_page(result: SearchResult, change: str) -> Path:
    """Write the page into the search's folder; `change` is the difference to case.yaml that adopting makes."""
    return write_text(result.folder / "report.html", page(result, change))


def page(result: SearchResult, change: str) -> str:
    """The whole report as HTML."""
    rows = [[escape(cell) for cell in row] for row in front_rows(result)]
    best = sorted((each for each in result.trials if each.state == "complete"), key=lambda each: each.loss or 0.0)[
        :SHOWN
    ]
    details = [
        f"<details><summary>trial {each.number}: {escape(shown_value(result.metric, each.loss))}, {escape(each.label)}"
        f"</summary><pre>{escape(json.dumps(each.configuration, indent=1))}</pre></details>"
        for each in best
    ]
    parts = [
        *(f"<p>{escape(line)}</p>" for line in summary(result)),
        f"<h2>The front in {escape(result.metric)} and speed</h2>",
        html_table(FRONT_HEAD, rows, texts=(1, 6)),
        "<h2>What adopting changes in case.yaml</h2>",
        f"<pre>{escape(change) or 'nothing'}</pre>",
        "<h2>The best so far, by seconds</h2>",
        _curve(result),
        "<h2>What mattered</h2>",
        "<p>The share of the differences between trials that a choice explains by itself.</p>",
        html_table(("choice", "share"), [[escape(n), f"{v:.0%}"] for n, v in [*result.importance.items()][:SHOWN]]),
        f"<h2>The best {len(best)}</h2>",
        *details,
        "<h2>All trials</h2>",
        _all(result),
        f"<p class='dim'>Compared on: {escape('; '.join(result.rungs))}. The hold-out of the case was not read.</p>",
    ]
    return html_page(f"Search of {result.case}", *parts)


def _all(result: SearchResult) -> str:
    rows = [
        [
            str(trial.number),
            escape(trial.state),
            escape(shown_value(result.metric, trial.loss)),
            f"{trial.rungs} of {len(result.rungs)}",
            f"{trial.seconds:.1f}",
            escape(trial.label),
            escape(trial.reason),
        ]
        for trial in result.trials
    ]
    head = ("trial", "state", result.metric, "parts", "seconds", "configuration", "why it ended")
    table = html_table(head, rows, texts=(1, 5, 6))
    return f"<details><summary>{len(rows)} trials</summary>{table}</details>"


def _curve(result: SearchResult) -> str:
    """The best complete loss over the seconds that trials took."""
    points, seconds, best = [], 0.0, float("inf")
    for trial in result.trials:
        seconds += trial.seconds
        if trial.state == "complete" and trial.loss is not None and trial.loss < best:
            points.append((seconds - trial.seconds, best))
            best = trial.loss
            points.append((seconds, best))
    points = [point for point in points if point[1] < float("inf")]
    if len(points) < 2:
        return "<p>One trial only.</p>"
    points.append((max(seconds, points[-1][0]), best))
    return _draw(points, result)


def _draw(points: Sequence[tuple[float, float]], result: SearchResult) -> str:
    most, (low, high) = points[-1][0] or 1.0, (min(p[1] for p in points), max(p[1] for p in points))
    spread = (high - low) or 1.0
    # a lower loss is drawn higher
    places = " ".join(
        f"{MARGIN + (WIDTH - 2 * MARGIN) * x / most:.1f},{MARGIN / 2 + (HEIGHT - 2 * MARGIN) * (y - low) / spread:.1f}"
        for x, y in points
    )
    labels = [(MARGIN / 2, shown_value(result.metric, low)), (HEIGHT - 1.5 * MARGIN, shown_value(result.metric, high))]
    texts = "".join(
        f'<text x="0" y="{y - 4:.0f}" font-size="11" fill="currentColor">{text}</text>' for y, text in labels
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="best {escape(result.metric)} over seconds">'
        f'<polyline points="{places}" fill="none" stroke="var(--fill)" stroke-width="2"/>{texts}'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 8}" font-size="11" text-anchor="end" fill="currentColor">'
        f"{most:.0f} s of trials</text></svg>"
    )
