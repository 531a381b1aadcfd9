"""Data quality over time as small SVG charts: rows, quarantined rows and missing values of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from tasks.core.html_page import html_table
from tasks.monitor.results import BatchQuality

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 150, 46, 22, 24
COLOURS = ("#d1662a", "#3b8f4c", "#8c5fa8", "#7a7a7a")
FIGURES = ("rows", "quarantined", "missing most")
MIN_ROWS = 30  # of a batch; shares of fewer say nothing, and a month that has just begun would fill the chart
COLUMNS = len(COLOURS)  # that miss the most, each with a line


def draw_quality(batches: Sequence[BatchQuality]) -> list[str]:
    """The charts of each source, and its figures as a table."""
    if not batches:
        return []
    parts, single = ["<h2>Data quality over time</h2>"], []
    for source, group in groupby(batches, key=lambda batch: batch.source):
        of_source = list(group)
        figures = [[escape(b.batch), f"{b.rows:,}", f"{b.quarantined:,}", _most(b)] for b in of_source]
        if len(figures) == 1:
            single.append([escape(source), *figures[0]])
            continue
        charts = _rows(of_source) + _missing(of_source)
        table = html_table(["batch", *FIGURES], figures, texts=(3,))
        parts.append(
            f"<h3>{escape(source)}</h3><div style='display:flex;flex-wrap:wrap;gap:1.2rem'>{charts}</div>"
            f"<details><summary>Figures by batch</summary>{table}</details>"
        )
    if single:
        parts.append(html_table(["of one batch", "batch", *FIGURES], single, texts=(4,)))
    return parts


def _rows(batches: Sequence[BatchQuality]) -> str:
    """Bars of landed rows, with the quarantined ones on top in red."""
    most = max(batch.rows + batch.quarantined for batch in batches) or 1
    step, wide, body = _step(batches), _bar(batches), []
    for number, batch in enumerate(batches):
        x = LEFT + number * step
        y, z = _height(batch.rows / most), _height((batch.rows + batch.quarantined) / most)
        about = f"{batch.batch}: {batch.rows:,} rows, {batch.quarantined:,} quarantined"
        body.append(
            f"<g><title>{escape(about)}</title>"
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{HEIGHT - BOTTOM - y:.1f}" fill="#5b8def"/>'
            f'<rect x="{x:.1f}" y="{z:.1f}" width="{wide:.1f}" height="{y - z:.1f}" fill="#d64545"/></g>'
        )
    quarantined = sum(batch.quarantined for batch in batches)
    title = f"rows, and {quarantined:,} quarantined in red" if quarantined else "rows, none quarantined"
    return _chart(title, batches, f"{most:,}", "".join(body))


def _missing(batches: Sequence[BatchQuality]) -> str:
    """A line for each of the columns that miss the most, as shares of the rows."""
    peaks: dict[str, float] = {}
    for batch in filter(_is_large, batches):
        for column, share in batch.missing.items():
            peaks[column] = max(peaks.get(column, 0.0), share)
    columns = sorted(peaks, key=lambda name: (-peaks[name], name))[:COLUMNS]
    if not columns:
        return _chart("missing values: none", batches, "0 %", "")
    most, step, middle = max(peaks.values()), _step(batches), _bar(batches) / 2
    body = []
    for colour, column in zip(COLOURS, columns, strict=False):
        known = [(number, batch) for number, batch in enumerate(batches) if _is_large(batch)]
        points = [
            (LEFT + middle + number * step, _height(batch.missing.get(column, 0.0) / most)) for number, batch in known
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(column)}, {escape(batch.batch)}: '
            f"{batch.missing.get(column, 0.0):.1%}</title></circle>"
            for (x, y), (_, batch) in zip(points, known, strict=True)
        )
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}')
    legend = ", ".join(
        f'<tspan fill="{colour}">{escape(column)}</tspan>' for colour, column in zip(COLOURS, columns, strict=False)
    )
    return _chart(f"share missing: {legend}", batches, f"{most:.1%}", "".join(body), is_markup=True)


def _chart(title: str, batches: Sequence[BatchQuality], most: str, body: str, *, is_markup: bool = False) -> str:
    bottom = HEIGHT - BOTTOM
    ends = f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(batches[0].batch)}</text>'
    if len(batches) > 1:
        ends += f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">{escape(batches[-1].batch)}</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="11" fill="currentColor" role="img">'
        f'<text x="0" y="11">{title if is_markup else escape(title)}</text>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{escape(most)}</text>'
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<line x1="{LEFT}" y1="{bottom}" x2="{WIDTH}" y2="{bottom}" stroke="currentColor" opacity=".3"/>'
        f"{body}{ends}</svg>"
    )


def _is_large(batch: BatchQuality) -> bool:
    return batch.rows >= MIN_ROWS


def _step(batches: Sequence[BatchQuality]) -> float:
    return (WIDTH - LEFT) / len(batches)


def _bar(batches: Sequence[BatchQuality]) -> float:
    """The width of a bar."""
    return min(_step(batches) * 0.8, 28)


def _height(share: float) -> float:
    """Where a share of the most lies, from the top."""
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _most(batch: BatchQuality) -> str:
    worst = sorted(batch.missing.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{escape(column)} {share:.1%}" for column, share in worst)
