"""The end of a search: the best of each arm is measured to its end, and what combines them is tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.search.budget import Spending, Spent
from tasks.search.contender import Contender
from tasks.search.measurement import losses_of, measurement_path, read_measurement
from tasks.search.problem import Combination, Complete, Problem
from tasks.search.results import TrialRecord

DUE = 0.5  # of the budget that measuring began with
MOST_FINALISTS = 4  # arms
COMBINED_FROM, OF_AN_ARM = 16, 5  # of the best complete trials, and of these of one arm


class Finals:
    """Both parts come once."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        self._problem = problem
        self._folder = folder
        self._begun_at: Spent | None = None
        self._has_begun = self._has_combined = False

    def is_due(self, spending: Spending) -> bool:
        """Whether half of what was left when this was first asked is spent, and the finals have not begun."""
        if self._has_begun:
            return False
        limit, spent = spending.limit, spending.spent
        begun = self._begun_at = self._begun_at or spent  # preparing the data may take half of a small budget
        amounts = [
            (begun.seconds, spent.seconds, limit.seconds),
            (begun.calls, spent.calls, limit.calls),
            (begun.money, spent.money, limit.money),
            (0, spending.trials, limit.trials),
        ]
        return any(most is not None and value - first >= DUE * (most - first) for first, value, most in amounts)

    def contenders(self, records: Sequence[TrialRecord]) -> list[Contender]:
        """The best beaten trial of each arm that has no complete one, nearest to the best first."""
        self._has_begun = True
        complete = {record.arm for record in records if record.state == "complete" and record.number}
        best: dict[str, TrialRecord] = {}
        for record in sorted((each for each in records if each.state == "beaten"), key=_distance):
            if record.arm not in complete:
                best.setdefault(record.arm, record)
        return [self._contender(record) for record in [*best.values()][:MOST_FINALISTS]]

    def combination(self, records: Sequence[TrialRecord]) -> Combination | None:
        """What the problem makes of the best complete trials, once."""
        if self._has_combined:
            return None
        self._has_combined = True
        complete = [each for each in records if each.state == "complete" and not each.combined]
        chosen: list[TrialRecord] = []
        for record in sorted(complete, key=lambda each: each.loss or 0.0):
            if sum(each.arm == record.arm for each in chosen) < OF_AN_ARM:
                chosen.append(record)
        return self._problem.combine([self._complete(record) for record in chosen[:COMBINED_FROM]])

    def _contender(self, record: TrialRecord) -> Contender:
        running = record.model_copy(update={"state": "running"})
        return Contender(running, None, losses_of(self._folder, record), is_finalist=True)

    def _complete(self, record: TrialRecord) -> Complete:
        paths = [measurement_path(self._folder, record.configuration, rung) for rung in range(record.rungs)]
        measured = [read_measurement(path) for path in paths]
        predictions = [each.scores.predictions if each else None for each in measured]
        return Complete(record.configuration, record.loss or 0.0, record.call_seconds, predictions)


def _distance(record: TrialRecord) -> float:
    return (record.loss or 0.0) - (record.best or 0.0)
