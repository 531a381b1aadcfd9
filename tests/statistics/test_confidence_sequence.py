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
