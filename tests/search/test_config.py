"""The budget of a search, as people write it."""

from __future__ import annotations

import pytest

from tasks.core.errors import InputError
from tasks.search.config import Limit, Search


def test_a_budget_is_time_calls_or_money():
    """Each unit is read, and several together."""
    assert Limit.parse("15m").seconds == 900
    assert Limit.parse("2000-calls").calls == 2000
    assert Limit.parse("0.20$").money == 0.2
    assert Limit.parse("30-trials").trials == 30
    assert Limit.parse("1h 500-calls") == Limit(seconds=3600, calls=500)


@pytest.mark.parametrize("text", ["", "15", "0m", "10 m", "soon", "5m soon"])
def test_another_budget_is_refused_with_the_units(text):
    """The message lists what can be written."""
    with pytest.raises(InputError, match="2000-calls"):
        Limit.parse(text)
    with pytest.raises(ValueError, match="2000-calls"):
        Search(budget=text)
