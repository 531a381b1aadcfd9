"""Plots of a model card, as SVG text: metrics by slice, rates by group with intervals, and calibration."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.govern.evidence import Evidence
from tasks.govern.limits import RANKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
BLUE, ORANGE = "#1f6fb4", "#d1662a"
RATE = "selection_rate"


def card_plots(evidence: Evidence, folder: Path) -> list[str]:
    """Those plots that the evidence in the manifest and in the release's folder suffices for."""
    metrics = evidence.recorded.get("metrics", {})
    found = []
    metric = next((name for name in RANKED if name in metrics.get("overall", {})), None)
    if metric:
        points = {
            f"{column}: {value}": each[metric]
            for column, values in metrics.get("by_slice", {}).items()
            for value, each in values.items()
            if metric in each
        }
        if points:
            found.append(_by_slice(metric, points, metrics["overall"][metric]))
    rates = {
        f"{column}: {group}": [each[f"{RATE}{end}"] for end in ("", "_low", "_high")]
        for column, groups in metrics.get("fairness", {}).items()
        for group, each in groups.items()
        if f"{RATE}_low" in each
    }
    found += [_by_group(rates)] if rates else []
    return found + _calibration(evidence, folder / "scores.parquet")


def _by_slice(metric: str, points: Mapping[str, float], overall: float) -> str:
    figure, axes = _figure(f"{metric} by slice (line: all rows)", list(points))
    axes.axvline(overall, color="#7a7a7a", linewidth=1)
    axes.plot(list(points.values()), range(len(points)), "o", color=BLUE)
    return _svg(figure, f"{metric} of each slice")


def _by_group(rates: Mapping[str, Sequence[float]]) -> str:
    figure, axes = _figure("selection rate by group, with its interval", list(rates))
    middle = [each[0] for each in rates.values()]
    below = [max(0.0, each[0] - each[1]) for each in rates.values()]
    above = [max(0.0, each[2] - each[0]) for each in rates.values()]
    axes.errorbar(middle, range(len(rates)), xerr=[below, above], fmt="o", color=ORANGE, capsize=3)
    return _svg(figure, "selection rate of each group")


def _calibration(evidence: Evidence, scores: Path) -> list[str]:
    """Of two classes 0 and 1: how often the outcome came true, by predicted probability."""
    target = evidence.sealed.get("target", {})
    if target.get("task") != "classification" or "classes" in target or not scores.is_file():
        return []
    import numpy as np
    import pandas as pd

    table = pd.read_parquet(scores, columns=[target["column"], "prediction"]).dropna()
    predicted, outcome = table["prediction"].to_numpy(float), table[target["column"]].to_numpy(float)
    places = np.clip((predicted * BINS).astype(int), 0, BINS - 1)
    filled = [each for each in range(BINS) if (places == each).any()]
    figure, axes = _figure("calibration: observed share by predicted probability", [])
    axes.plot([0, 1], [0, 1], color="#7a7a7a", linewidth=1)
    means = [(predicted[places == each].mean(), outcome[places == each].mean()) for each in filled]
    axes.plot([x for x, _ in means], [y for _, y in means], "o-", color=BLUE)
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    return [_svg(figure, "calibration of the predictions")]


def _figure(title: str, names: Sequence[str]) -> tuple[Any, Axes]:
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it logs that it builds a font cache
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(names) if names else 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    if names:
        axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
        axes.invert_yaxis()
    axes.grid(axis="x", color="#e4e4e4")
    axes.tick_params(labelsize=9, length=0)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    """The same figure gives the same text: no date, and ids from a fixed salt."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return f'<figure role="img" aria-label="{label}">{text[text.index("<svg") :]}</figure>'
