"""The groups of people in a window, as tables of the monitoring page."""

from __future__ import annotations

from html import escape

from tasks.core.html_page import html_table
from tasks.monitor.results import Signal

METRICS = ("selection_rate", "true_positive_rate", "false_positive_rate", "calibration_gap", "error")


def draw_groups(signal: Signal) -> list[str]:
    """Rates with 95 % intervals by group, and the fairness gates; a group that is too small has its rows alone."""
    if not signal.groups:
        return []
    parts = ["<h2>Groups of people</h2>"]
    parts += [f"<p>{escape(each.name)}: {escape(each.outcome)}. {escape(each.note)}</p>" for each in signal.disparities]
    for columns, groups in signal.groups.items():
        names = [name for name in METRICS if any(name in values for values in groups.values())]
        rows = [
            [escape(group), f"{values['rows']:,}", *(_interval(values, name) for name in names)]
            for group, values in groups.items()
        ]
        parts.append(html_table([escape(columns), "rows", *(name.replace("_", " ") for name in names)], rows))
    return parts


def _interval(values: dict[str, float], name: str) -> str:
    if name not in values:
        return "unknown"
    return f"{values[name]:.3f} ({values[f'{name}_low']:.3f} to {values[f'{name}_high']:.3f})"
