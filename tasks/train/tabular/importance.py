"""Permutation importance, and the plots of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.statistics.metric_catalog import LossName
from tasks.train.classes import Class
from tasks.train.metrics import calibration_bins, losses
from tasks.train.tabular.scoring import Model, predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SAMPLE_ROWS = 2000
POINTS = 400  # of a curve; a screen shows fewer
MAX_LINES = 10  # more could not be distinguished

Lines: TypeAlias = "dict[str, tuple[np.ndarray, np.ndarray]]"  # by class: whether it is the one, and its probability


def importance(
    model: Model, holdout: pd.DataFrame, target: np.ndarray, seed: int, rows: int = SAMPLE_ROWS
) -> dict[str, float]:
    """Permutation importance on a seeded sample: each feature's share of the loss that shuffling it adds; sums to 1.

    A feature that does not help has 0. All are 0 when none helps.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    some = np.sort(random.permutation(len(holdout))[:rows])
    values = {c.name: holdout[c.name].to_numpy()[some] for c in model.columns}
    y = np.asarray(target, float)[some]
    loss: LossName = "brier" if model.classifies else "squared_error"
    before = losses(loss, y, predict(model, values)).mean()
    harm = {}
    for column in model.columns:
        shuffled = {**values, column.name: values[column.name][random.permutation(len(some))]}
        harm[column.name] = max(0.0, float(losses(loss, y, predict(model, shuffled)).mean() - before))
    total = sum(harm.values())
    return {name: value / total if total else 0.0 for name, value in harm.items()}


def draw(
    folder: Path, classes: Sequence[Class], target: np.ndarray, prediction: np.ndarray, shares: dict[str, float]
) -> None:
    """Write the plots as PNG files into `folder`; of three classes or more with a line for each of the first ones."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it announces that it builds a font cache
    folder.mkdir(parents=True, exist_ok=True)
    if classes:
        lines = {"": (target == 1, prediction)}
        if len(classes) > 2:
            lines = {str(name): (target == k, prediction[:, k]) for k, name in enumerate(classes[:MAX_LINES])}
        _draw_curves(folder / "roc_pr.png", lines)
        _draw_calibration(folder / "calibration.png", lines)
    else:
        _draw_residuals(folder / "residuals.png", target, prediction)
    _draw_importance(folder / "importance.png", shares)


def _figure(width: float, height: float, panels: int = 1, left: float = 0.7) -> tuple[Any, list[Any]]:
    """A figure of so many inches without pyplot, which keeps state for the whole process."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80)  # no automatic layout: it draws everything twice
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=left / width, right=1 - 0.2 / width, bottom=0.6 / height, top=1 - 0.4 / height)
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _draw_curves(path: Path, lines: Lines) -> None:
    import numpy as np

    figure, (roc, pr) = _figure(9, 4, 2)
    for name, (target, prediction) in lines.items():
        order = np.argsort(-prediction, kind="stable")
        hits = np.cumsum(np.asarray(target, float)[order])
        counts = np.arange(1, len(order) + 1)
        some = np.unique(np.linspace(0, len(order) - 1, POINTS).astype(int))
        recall, precision = hits / max(hits[-1], 1), hits / counts
        alarm = (counts - hits) / max(counts[-1] - hits[-1], 1)
        roc.plot(np.append(0, alarm[some]), np.append(0, recall[some]), label=name)
        pr.plot(recall[some], precision[some])
        pr.axhline(hits[-1] / len(order), linestyle=":", color="grey")
    roc.plot([0, 1], [0, 1], linestyle=":", color="grey")
    roc.set(title="ROC on the hold-out", xlabel="false positive rate", ylabel="true positive rate")
    pr.set(title="Precision and recall on the hold-out", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    _name_lines(roc, lines)
    figure.savefig(path)


def _draw_calibration(path: Path, lines: Lines) -> None:
    figure, (axes,) = _figure(5, 4)
    for name, (target, prediction) in lines.items():
        bins = calibration_bins(target, prediction)
        axes.plot([b[0] for b in bins], [b[1] for b in bins], marker="o", label=name)
    axes.axline((0, 0), slope=1, linestyle=":", color="grey")
    axes.set(title="Calibration on the hold-out", xlabel="mean prediction", ylabel="observed share")
    _name_lines(axes, lines)
    figure.savefig(path)


def _name_lines(axes: Any, lines: Lines) -> None:
    if len(lines) > 1:
        axes.legend(fontsize="small")


def _draw_residuals(path: Path, target: np.ndarray, prediction: np.ndarray) -> None:
    import numpy as np

    some = np.unique(np.linspace(0, len(target) - 1, 2000).astype(int))
    figure, (axes,) = _figure(5, 4)
    axes.scatter(prediction[some], np.asarray(target, float)[some], s=6, alpha=0.5)
    axes.axline((float(np.mean(target)), float(np.mean(target))), slope=1, linestyle=":", color="grey")
    axes.set(title="Hold-out", xlabel="prediction", ylabel="observed")
    figure.savefig(path)


def _draw_importance(path: Path, shares: dict[str, float]) -> None:
    top = sorted(shares.items(), key=lambda item: item[1])[-20:]
    longest = max(len(name) for name, _ in top)
    figure, (axes,) = _figure(6, 1.2 + 0.22 * len(top), left=min(0.3 + 0.09 * longest, 3.5))
    axes.barh([name for name, _ in top], [share for _, share in top])
    axes.set(title="Permutation importance", xlabel="share of the added loss")
    figure.savefig(path)
