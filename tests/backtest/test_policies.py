"""What a replay is asked, before anything is started."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.backtest.policies import POLICIES, check_backtest, month_ends
from tasks.core.errors import InputError


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_months_are_whole_and_the_last_one_counts():
    """From the month of the first day to that of the last, over a year's end; each ends where the next begins."""
    found = month_ends(day("2013-11-17"), day("2014-01-01"))
    assert [f"{border:%Y-%m-%d}" for border in found] == ["2013-11-01", "2013-12-01", "2014-01-01", "2014-02-01"]
    assert len(month_ends(day("2013-04-01"), day("2013-12-31"))) == 9 + 1
    assert len(month_ends(day("2013-04-01"), day("2013-04-01"))) == 2


@pytest.mark.parametrize(
    ("policies", "named"),
    [(("never", "weekly"), "weekly"), (("never", "never"), "never"), ((), "none"), (("",), "never, monthly, decide")],
)
def test_an_unknown_policy_is_refused_with_all_names(policies, named):
    """The error lists the policies there are, and what was found."""
    with pytest.raises(InputError) as found:
        check_backtest("tabular", policies, day("2013-04-01"), day("2013-05-01"))
    assert named in str(found.value)
    assert all(name in found.value.allowed for name in POLICIES)
    assert found.value.exit_code == 2


def test_a_language_case_and_a_period_backwards_are_refused():
    """What can't be played is said at once."""
    with pytest.raises(InputError, match="tuned anew for each month"):
        check_backtest("llm", ("never",), day("2013-04-01"), day("2013-05-01"))
    with pytest.raises(InputError, match="ends before it begins"):
        check_backtest("tabular", ("never",), day("2013-04-01"), day("2013-03-31"))
