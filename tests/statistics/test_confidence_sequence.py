"""The interval of a proportion that holds at all looks; its coverage is simulated in tests/gateway/test_plan.py."""

from __future__ import annotations

import pytest
from scipy import stats

from tasks.statistics.confidence_sequence import BinomialSequence


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 40), (40, 40), (77, 1000)])
def test_sequence_contains_the_interval_of_one_look(hits, trials):
    """A promise for all looks costs some width; with more trials the interval becomes narrow all the same."""
    low, high = BinomialSequence(hits, trials).interval(0.05)
    single = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert low <= single.low
    assert single.high <= high
    assert high - low < 4 * (single.high - single.low)


def test_no_trial_tells_nothing():
    """The interval is then all that is possible."""
    assert BinomialSequence().interval(0.05) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "trials", "limit"), [(0, 10, 0.05), (3, 100, 0.05), (40, 100, 0.5)])
def test_so_many_trials_would_be_enough(hits, trials, limit):
    """The interval of so many at the same rate lies below the limit, that of clearly fewer does not."""
    needed = BinomialSequence(hits, trials).trials_needed(limit, 0.01)
    rate = hits / trials
    assert BinomialSequence(round(rate * needed), needed).interval(0.01)[1] <= limit
    fewer = needed // 2
    assert BinomialSequence(round(rate * fewer), fewer).interval(0.01)[1] > limit


def test_no_number_of_trials_shows_what_is_not_so():
    """A rate at or above the limit, or no trial at all."""
    assert BinomialSequence(5, 100).trials_needed(0.05, 0.01) is None
    assert BinomialSequence().trials_needed(0.05, 0.01) is None
