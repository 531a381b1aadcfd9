"""Lines by month as SVG text, to stand within a page."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#7a7a7a", "#1f6fb4", "#d1662a", "#3b8f4c", "#8c5fa8")
MARKS = {"promoted": ("^", "challenger promoted"), "rejected": ("X", "rejected"), "rolled back": ("v", "rolled back")}
Marks = Sequence[tuple[int, str]]  # month after which there was an action, and its outcome


def draw_lines(
    title: str, months: Sequence[str], lines: Mapping[str, Sequence[float | None]], marks: Mapping[str, Marks]
) -> str:
    """A line a policy; a mark between two months shows an action and its outcome."""
    figure, axes = _figure(title, months)
    for number, (policy, values) in enumerate(lines.items()):
        colour, known = COLOURS[number % len(COLOURS)], [float("nan") if v is None else v for v in values]
        axes.plot(known, color=colour, linewidth=2.2 - 0.3 * number, label=policy, zorder=2 + number)
        for month, outcome in marks[policy]:
            shape = MARKS.get(outcome, MARKS["rejected"])[0]
            between = (known[month] + known[min(month + 1, len(known) - 1)]) / 2
            filled = "white" if shape == "X" else colour
            place = month + 0.5 + 0.12 * (number - len(lines) / 2)  # where lines coincide, marks do not
            axes.plot(place, between, shape, color=colour, markerfacecolor=filled, markersize=8, zorder=9)
    shapes = {MARKS.get(outcome, MARKS["rejected"]) for found in marks.values() for _, outcome in found}
    for shape, meaning in sorted(shapes):
        axes.plot([], [], shape, color="#444", markerfacecolor="white" if shape == "X" else "#444", label=meaning)
    return _written(figure, axes)


def draw_gains(title: str, months: Sequence[str], gains: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A point a policy and month with its interval; above the line is better."""
    figure, axes = _figure(title, months)
    axes.axhline(0, color="#7a7a7a", linewidth=1)
    for number, (policy, found) in enumerate(gains.items()):
        places = [month + 0.18 * (number - (len(gains) - 1) / 2) for month in range(len(months))]
        means = [gain["mean"] for gain in found]
        below = [0.0 if gain["low"] is None else max(0.0, gain["mean"] - gain["low"]) for gain in found]
        above = [0.0 if gain["high"] is None else max(0.0, gain["high"] - gain["mean"]) for gain in found]
        colour = COLOURS[(number + 1) % len(COLOURS)]
        axes.errorbar(places, means, [below, above], fmt="o", color=colour, capsize=3, markersize=4, label=policy)
    return _written(figure, axes)


def _figure(title: str, months: Sequence[str]) -> tuple[Any, Axes]:
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it logs that it builds a font cache
    figure = Figure(figsize=(9.5, 3.4))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.075, right=0.77, bottom=0.12, top=0.9)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xticks(range(len(months)), months)
    axes.set_xlim(-0.4, len(months) - 0.6)
    axes.grid(axis="y", color="#e4e4e4")
    axes.tick_params(labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _written(figure: Any, axes: Axes) -> str:
    """The same figure gives the same text: no date, and ids from a fixed salt."""
    import matplotlib

    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "replay", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
