"""The catalog agrees with the code that computes the metrics."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.language.answer_scoring import JsonScorer, metric_fractions
from tasks.statistics.metric_catalog import METRICS, MetricName, metrics_of, worse_by
from tasks.train.metrics import compute_metrics


def test_each_metric_of_predictions_is_computed():
    """None is missing from the catalog, and none in it is without code; the order is the same."""
    random = np.random.default_rng(0)
    p = random.random(50)
    y = (random.random(50) < p).astype(float)
    assert {*compute_metrics(y, p, "classification")} == {*metrics_of("classification")}
    assert {*compute_metrics(y, p, "regression")} == {*metrics_of("regression")}


def test_each_ratio_of_answers_is_in_the_catalog():
    """All but the one that only a baseline is measured by."""
    score = JsonScorer({"type": "object"}).score("{}", "{}", "")
    assert {*metric_fractions(score)} - {"exact_match_anywhere"} <= {*metrics_of("answers")}


def test_an_unknown_metric_is_refused_with_all_names():
    """A case that misspells a metric reads which there are."""
    adapter = TypeAdapter(MetricName)
    assert [adapter.validate_python(metric.name) for metric in METRICS]
    with pytest.raises(ValidationError, match=r"'auc'.*'judge_score'"):
        adapter.validate_python("aux")


def test_worse_points_the_right_way():
    """Higher AUC is better, higher error is worse, and so is the higher of an unknown cost."""
    assert worse_by("auc", 0.6, than=0.7) == pytest.approx(0.1)
    assert worse_by("brier", 0.2, than=0.15) == pytest.approx(0.05)
    assert worse_by("answer_tokens", 30, than=20) == 10
