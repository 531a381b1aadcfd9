"""Metrics and bias by the outcomes that arrived, in a window and in its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.monitor.results import Part
from tasks.monitor.tabular.intervals import metric_intervals
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions, errors_of, most_biased_class
from tasks.monitor.tabular.performance_estimate import estimate
from tasks.statistics.metric_catalog import metrics_of
from tasks.train.classes import Classes
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Performance:
    """The outcomes and predictions of a window beside those of the hold-out."""

    window: LabelsAndPredictions
    reference: LabelsAndPredictions
    target: Target
    classes: Classes

    @cached_property
    def worst(self) -> int | None:
        """The number of the class whose bias is watched."""
        return most_biased_class(self.window, self.classes)

    @cached_property
    def unit(self) -> float:
        """The unit of a bias: 1, or for a regression the hold-out's mean |outcome|."""
        import numpy as np

        return 1.0 if self.target.task == "classification" else float(np.abs(self.reference[0]).mean())

    def measure(self) -> dict[str, Any]:
        """Metrics and bias of the rows with an outcome, beside the hold-out's."""
        metrics, reference = (compute_metrics(*side, self.target.task) for side in (self.window, self.reference))
        classification = self.target.task == "classification"
        return {
            "metrics": metrics,
            "reference": reference,
            "intervals": metric_intervals(self.window, metrics, classification=classification),
            "reference_intervals": metric_intervals(self.reference, reference, classification=classification),
            "expected": estimate(self.window[1], self.reference) if self.classes else {},
            "bias": self._bias(self.window),
            "bias_then": self._bias(self.reference),
            "bias_class": self.classes[self.worst] if self.worst is not None and len(self.classes) > 2 else None,
        }

    def missing(self) -> list[str]:
        """A sentence for each metric that can't be computed, and for the bias."""
        rows, metrics = len(self.window[0]), compute_metrics(*self.window, self.target.task)
        names = [name for name in metrics_of(self.target.task) if name not in metrics]
        sentences = [f"{name} was not computed: {self._reason(rows)}." for name in names]
        if not rows:
            sentences.append("Bias was not computed: no outcome has arrived.")
        elif not self.unit:
            sentences.append("Bias was not computed: all outcomes of the hold-out are 0, so it is a share of nothing.")
        return sentences

    def parts(self, times: pd.Series, metric: str, borders: Sequence[tuple[datetime, datetime]]) -> tuple[Part, ...]:
        """The watched metric and the bias in each part of the window; `times` are those of its rows."""
        parts = []
        for start, end in borders:
            rows = ((times >= start) & (times < end)).to_numpy()
            side = self.window[0][rows], self.window[1][rows]
            value = compute_metrics(*side, self.target.task).get(metric)
            expected = estimate(side[1], self.reference).get(metric) if self.classes else None
            bias = self._bias(side)
            parts.append(Part(start=start, end=end, rows=int(rows.sum()), value=value, expected=expected, bias=bias))
        return tuple(parts)

    def _bias(self, side: LabelsAndPredictions) -> float | None:
        return float(errors_of(side, self.worst).mean()) / self.unit if len(side[0]) and self.unit else None

    def _reason(self, rows: int) -> str:
        if not rows:
            return "no outcome has arrived"
        return f"all {rows:,} outcomes are the same" if self.target.task == "classification" else "it is not finite"
