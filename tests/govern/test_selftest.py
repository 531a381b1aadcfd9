"""Promise: the gates of a case refuse each known-bad candidate, by the gate that is there for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import GateFailed, InputError
from tasks.evaluate.config import Evaluate
from tasks.govern.selftest import Tested, find_candidate, require_caught, run_selftest, sealed_result
from tasks.train.results import Candidate
from tasks.train.tabular.fit import train
from tests.train.frames import BY_HASH, CLASSES, TEXTS, boosting, clients, frame_of, origin_of

GATES: dict[str, Any] = {
    "slices": ("sex",),
    "bounds": ({"metric": "auc", "at_least": 0.7},),
    "slice_gate": {"metric": "auc", "at_most_worse": 0.15, "min_rows": 150},
    "champion_gate": {"loss": "brier"},
    "ms_per_row": 30,
}


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Candidate:
    frame = frame_of(clients(3000), tmp_path_factory.mktemp("frame"))
    return train(origin_of("tested", state), frame, CLASSES, boosting(TEXTS, BY_HASH))


def tested(candidate: Candidate, **changes: Any) -> dict[str, Tested]:
    config = Evaluate.model_validate(GATES | changes)
    return {each.name: each for each in run_selftest(candidate, CLASSES, boosting(TEXTS, BY_HASH), config)}


def test_every_bad_candidate_is_caught_by_its_gate(candidate: Candidate) -> None:
    caught = {name: each.caught_by for name, each in tested(candidate).items()}
    assert "auc" in caught["shuffled labels"]
    assert "leak: copy_of_the_target" in caught["leaked feature"]
    assert "dummy_brier" in caught["constant predictor"]
    assert "auc_by_sex" in caught["biased slice"]
    assert "unanswered" in caught["no missing values"]
    assert caught["slow"] == ("ms_per_row",)


def test_a_gate_that_the_case_lacks_lets_one_through(candidate: Candidate) -> None:
    """Without a bound on time the slow one is promoted, and waived leaks let the leaking one through."""
    found = tested(
        candidate,
        ms_per_row=None,
        waive={"copy_of_the_target": {"reason": "a test", "by": "Ann Lee", "until": "2100-01-01"}},
    )
    assert {name for name, each in found.items() if not each.caught} == {"slow", "leaked feature"}


def test_the_sealed_result_holds_no_time(candidate: Candidate) -> None:
    """Only the slow candidate is caught by a measured time; equal runs give equal bytes; a missed one is an error."""
    first, again = (list(tested(candidate, ms_per_row=ms).values()) for ms in (30, 30))
    assert sealed_result(first) == sealed_result(again)
    require_caught("tested", first)
    with pytest.raises(GateFailed, match="1 of 6 known-bad candidates") as failed:
        require_caught("tested", list(tested(candidate, ms_per_row=None).values()))
    assert failed.value.todo == "Set evaluate.ms_per_row in the case."
    busy = tested(candidate, ms_per_row=1e-6)
    assert [name for name, each in busy.items() if "ms_per_row" in each.caught_by] == ["slow"]


def test_a_release_finds_its_candidate(candidate: Candidate, state: Path, tmp_path: Path) -> None:
    assert find_candidate(state, "tested", candidate.weights_digest).run_id == candidate.run_id
    with pytest.raises(InputError, match="is gone"):
        find_candidate(state, "tested", "0" * 64)
