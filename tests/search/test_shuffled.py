"""Labels that say nothing: what a search finds by luck does not pass the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.search_shuffled import START, passes, promoted, shuffled_frame

SEARCHES, MOST = 200, 16  # the exact 95 % interval of 16 of 200 then includes .05


def test_a_few_searches_promote_at_most_one(tmp_path: Path) -> None:
    """Of two searches, each of which tries several families: by chance two would pass once in 400 times."""
    assert sum(promoted(number, tmp_path / str(number), "8-trials") for number in range(2)) <= 1


def test_the_gate_refuses_what_learned_noise(tmp_path: Path) -> None:
    """A forest that learned shuffled labels by heart is worse than the case as it is, and an equal model is not."""
    frame = shuffled_frame(0, tmp_path)
    forest = START.model_copy(
        update={"family": "sklearn.ensemble.RandomForestClassifier", "parameters": {"n_estimators": 20}}
    )
    assert not passes(frame, START, forest)
    assert passes(frame, START, START)


@pytest.mark.long
def test_200_searches_promote_at_most_16(tmp_path: Path) -> None:
    """So many pass by chance at most, where one in twenty may."""
    assert sum(promoted(number, tmp_path / str(number), "8-trials") for number in range(SEARCHES)) <= MOST
