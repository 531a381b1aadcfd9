"""Promise: the gate against the champion errs as rarely as it says; small, skewed and tied samples included."""

from __future__ import annotations

import pytest

from benchmarks.verdicts import ALPHA, POWER, RUNS, Data, has_power, kinds, share_of, slice_promotes, slice_rejects

FEW = 40  # seeded runs of the short test


@pytest.mark.parametrize("data", kinds(), ids=lambda data: data.name)
def test_false_promotions_are_rare(data: Data) -> None:
    assert share_of(data.promotes, FEW).interval[0] <= ALPHA


def test_slices_are_compared_with_care() -> None:
    """One bad slice of four is promoted, and four just good enough are rejected, no more often than it says."""
    assert share_of(slice_promotes, FEW).interval[0] <= ALPHA
    assert share_of(slice_rejects, FEW).interval[0] <= ALPHA


@pytest.mark.long
@pytest.mark.parametrize("data", kinds(), ids=lambda data: data.name)
def test_false_promotions_of_a_thousand_null_runs(data: Data) -> None:
    """The exact interval of their share includes alpha, or lies below it."""
    assert share_of(data.promotes, RUNS).interval[0] <= ALPHA


@pytest.mark.long
def test_slices_of_a_thousand_null_runs() -> None:
    assert share_of(slice_promotes, RUNS).interval[0] <= ALPHA
    assert share_of(slice_rejects, RUNS).interval[0] <= ALPHA


@pytest.mark.long
def test_power_is_as_stated() -> None:
    """With the number of examples that a note names, four of five tries promote."""
    low, high = share_of(has_power, RUNS).interval
    assert low <= POWER <= high
