"""A search keeps its budget, goes on after a kill, and reads no row of the hold-out."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError, InputError
from tasks.search.budget import start_clock
from tasks.search.config import Search
from tasks.search.results import SearchResult, read_trials
from tasks.search.search import Progress, search, search_folder
from tests.search.tables import problem, small_frame, write_frame

ROOT = Path(__file__).resolve().parents[2]


def run(frame, state: Path, budget: str, settings: Search | None = None) -> SearchResult:
    found = problem(frame, settings)
    return search(found, found.settings, budget, state=state, observe=lambda _: None)


def test_a_search_finds_what_a_linear_model_misses(frame, tmp_path):
    """The best beats the case as it is, on the same examples, and its optimism is stated."""
    result = run(frame, tmp_path, "12-trials")
    assert result.stopped == "the budget of 12 trials is spent"
    assert result.trial(0).state == "complete"
    assert result.chosen != 0
    assert result.is_better
    assert result.best.change["train"]["family"]
    assert result.optimism is not None
    assert result.optimism.corrected >= result.optimism.loss
    assert result.chosen in result.front


def test_nothing_runs_past_the_budget(frame, tmp_path):
    """Everything has ended by the end of the budget, and what ran then is unfinished."""
    started = time.monotonic()
    result = run(frame, tmp_path, "20s")
    assert time.monotonic() - started < 20 + 5
    assert result.stopped == "the budget of 20 s is spent"


def test_an_ended_search_is_not_run_again(frame, tmp_path):
    """The same budget returns what was found; a larger one goes on with the difference."""
    first = run(frame, tmp_path, "4-trials")
    again = run(frame, tmp_path, "4-trials")
    assert again.trials == first.trials
    more = run(frame, tmp_path, "5-trials")
    assert len(more.trials) == 5
    assert all(each in more.trials for each in first.trials if each.state == "complete")


KILLED = """
import sys
from pathlib import Path
from tasks.search.search import search
from tests.search.tables import problem, small_frame
folder = Path(sys.argv[1])
found = problem(small_frame(folder))
search(found, found.settings, "9-trials 90s", state=folder, observe=lambda progress: print(progress.trials, flush=True))
"""


def test_a_killed_search_goes_on_within_its_budget(frame, tmp_path):
    """After kill -9 no measurement survives, measured trials stay, and their time counts."""
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    for _ in range(3):
        assert killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    folder = search_folder(tmp_path, problem(frame))
    before = {each.number: each for each in read_trials(folder) if each.state == "complete"}
    started = time.monotonic()
    result = run(frame, tmp_path, "9-trials 90s")
    assert result.seconds - (time.monotonic() - started) > 1  # of the killed process
    assert before
    assert {each.number: each for each in result.trials if each.number in before} == before


def test_the_time_before_a_killed_search_counts(frame, tmp_path):
    """What a process spent on preparing is paid by the next one, and what an orderly end left is not."""
    path = tmp_path / "searches" / "small" / "preparing"
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack("d", 7.0))  # as kill -9 left it
    found = problem(frame)
    next_one = start_clock(tmp_path / "searches" / "small")
    result = search(found, found.settings, "1-trials", state=tmp_path, observe=lambda _: None, preparing=next_one)
    assert result.seconds > 7.0
    assert struct.unpack("d", path.read_bytes()) == (0.0,)


def test_no_row_of_the_holdout_is_read(tmp_path):
    """Whatever stands in the hold-out, the table that a search sees is the same."""
    frame = small_frame(tmp_path)
    table = pd.read_parquet(frame.path)
    seen = problem(frame).table
    held = table.tail(len(table) // 5).index
    table.loc[held, ["first", "second"]] = 1e6
    table.loc[held, "late"] = 1 - table.loc[held, "late"]
    other = problem(write_frame(table, tmp_path)).table
    latest = table.loc[held, "event_timestamp"].min()
    for fold, same in zip(seen.folds, other.folds, strict=True):
        for side, equal in zip(fold, same, strict=True):
            pd.testing.assert_frame_equal(side, equal)
            assert side["event_timestamp"].max() < latest
        assert fold[0]["event_timestamp"].max() < fold[1]["event_timestamp"].min()


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_are_not_shown_to_be_better(tmp_path, seed):
    """Nothing can be learned: the choice is not shown to be better, and new examples would be ranked by chance."""
    table = pd.read_parquet(small_frame(tmp_path).path)
    table["late"] = np.random.default_rng(seed).permutation(table["late"].to_numpy())
    result = run(write_frame(table, tmp_path), tmp_path, "8-trials")
    assert not result.is_better
    assert result.optimism is not None
    assert result.optimism.loss < result.optimism.corrected
    assert result.optimism.low < 0.5 < result.optimism.high


def test_a_budget_too_small_for_one_trial_is_refused(frame, tmp_path):
    """It says what would fit."""
    with pytest.raises(InputError, match="too small for one trial"):
        run(frame, tmp_path, "0.05s")


def test_a_family_that_cannot_be_stored_is_refused(frame):
    """With the reason, before anything is fitted."""
    with pytest.raises(CaseError, match="model file"):
        problem(frame, Search(families=("lightgbm",))).prepare()


def test_constraints_that_nothing_fits_are_refused(frame):
    """A linear model can't be held monotone."""
    settings = Search(families=("linear",), monotone={"first": "increasing"})
    with pytest.raises(CaseError, match="No family fits"):
        problem(frame, settings).prepare()


def test_a_search_in_which_nothing_holds_stops(frame, tmp_path):
    """Twenty trials are too slow for the case: it says so, and does not go on to the end of the budget."""
    slow = replace(problem(frame), ms_per_row=1e-6)
    result = search(slow, slow.settings, "60-trials", state=tmp_path, observe=lambda _: None)
    assert result.stopped.startswith("none of 20 trials holds the case's constraints; the last one: 0.")
    assert "ms a row, more than 1e-06" in result.stopped
    assert result.chosen == 0


def test_five_rows_a_class_are_refused(tmp_path):
    """Some rows are needed to fit on, some to compare by."""
    table = pd.read_parquet(small_frame(tmp_path).path)
    table["late"] = (table.index % 100 == 0).astype(int)
    with pytest.raises(DataError, match="too few training rows"):
        problem(write_frame(table, tmp_path)).prepare()


def test_features_of_one_value_are_refused(tmp_path):
    """Nothing can be learned from them."""
    table = pd.read_parquet(small_frame(tmp_path).path).assign(first=1.0, second=2.0, kind="a")
    with pytest.raises(DataError, match="one value only"):
        problem(write_frame(table, tmp_path)).prepare()


def test_a_monotone_column_holds(frame, tmp_path):
    """Every boosting is fitted with the direction, and the case can be run with it."""
    settings = Search(monotone={"first": "increasing"})
    result = run(frame, tmp_path, "4-trials", settings)
    tried = [each for each in result.trials if each.number]
    assert tried
    assert all(each.configuration["parameters"]["monotonic_cst"] == {"first": 1} for each in tried)
    assert "complete" in {each.state for each in tried}


def test_progress_names_the_best_so_far(frame, tmp_path):
    """Once the case as it is was measured, each trial's end comes with a best."""
    seen: list[Progress] = []
    found = problem(frame)
    search(found, found.settings, "3-trials", state=tmp_path, observe=seen.append)
    assert seen
    assert all(each.best is not None for each in seen[1:])
