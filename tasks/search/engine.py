"""The search: propose, foresee, measure, race, within a budget that is kept."""

from __future__ import annotations

import math
import time
from pathlib import Path

import psutil

from tasks.core.errors import DataError
from tasks.search.budget import Spending
from tasks.search.contender import Contender, Running
from tasks.search.finals import Finals
from tasks.search.measurement import Measured, cost_to_measure, measurement_path, read_measurement, write_measurement
from tasks.search.problem import Cost, Problem
from tasks.search.race import Listener, Race
from tasks.search.results import TrialRecord
from tasks.search.storage import open_study
from tasks.search.workers import Ended, Workers

GRACE, GRACE_FACTOR = 5.0, 4.0  # a measurement is killed after so many times its estimate, and at least so many seconds
FIRST_SHARE = 0.25  # of what is left, for the first measurement of an arm
MOST_SHARE = 0.3  # of what is left, for all rungs of a trial
SAFETY = 1.3  # of the estimate of an arm that was measured before
MOST_REPEATED = 60  # suggestions in a row that bring nothing new: the space is exhausted
MOST_REFUSED = 20  # trials that broke a constraint, where none held
MOST_MISFITS = 12  # trials in a row that do not fit into what is left: the search stops
WAIT = 0.2  # seconds between two looks at the budget


class Engine:
    """One search of a problem in a folder. `run` ends with the budget, or when nothing new can be suggested."""

    def __init__(self, problem: Problem, spending: Spending, folder: Path, seed: int, listener: Listener) -> None:
        self.problem = problem
        self.folder = folder
        self.stopped = ""
        self._spending = spending
        self._seed = seed
        self._listener = listener
        self._running: dict[str, Running] = {}
        self._waiting: list[Contender] = []  # for their next rung
        self._finals = Finals(problem, folder)
        self._ratios: dict[str, list[float]] = {}  # of measured to estimated seconds, by arm
        self._repeated = self._misfits = 0
        self._shortage = ""  # what the newest trial did not fit into

    @property
    def records(self) -> dict[int, TrialRecord]:
        """The trials that ended."""
        return self._race.records

    def run(self) -> None:
        """Raises: InputError when not even the case as it is fits into the budget; DataError when it can't be measured.

        Also: what `prepare` raises.
        """
        with Workers(self.problem, self.folder) as workers:
            self.problem.prepare()
            self._study = open_study(self.folder, self._seed, self.problem.workers)
            self._race = Race(self.problem, self._study, self.folder, self._listener)
            if not self._study.get_trials(deepcopy=False):
                self._study.ask()  # number 0: the case as it is
                for parameters in self.problem.first():
                    self._study.enqueue_trial(dict(parameters))
            if 0 in self.records and (shortage := self._spending.shortage(Cost()) or self._shortage_of_trials()):
                self.stopped = shortage
                return
            if not workers.wait_ready(self._spending.seconds_left):
                raise self._spending.too_small("loading the data takes longer", self._start_seconds())
            self._measure_start(workers)
            while not self.stopped or self._running:
                self._fill(workers)
                if not self._running:
                    break
                self._collect(workers)
        for contender in [*self._waiting, *(each.contender for each in self._running.values())]:
            self._race.end(contender, "unfinished", self.stopped)
        if not self._shortage_of_trials():
            self._combine()

    def _measure_start(self, workers: Workers) -> None:
        """The case as it is comes first and alone, so that all others are raced against something."""
        if 0 in self.records:
            return
        contender = self._race.enter(0, self.problem.start(), None)
        if refusal := self.problem.refusal(contender.record.configuration):
            contender.record = contender.record.model_copy(update={"reason": f"can't be adopted: {refusal}"})
        total = cost_to_measure(self.problem, self.folder, contender.record.configuration)
        if self._spending.shortage(Cost(calls=total.calls, money=total.money)):
            why = f"the case as it is takes {total.calls:,} calls, {total.money:.4g} in money"
            raise self._spending.too_small(why, total.seconds)
        too_small = f"the case as it is takes about {self._start_seconds():.0f} s", self._start_seconds()
        self._start_or_skip(contender, workers)
        if not self._running and not contender.losses:
            raise self._spending.too_small(*too_small)
        while contender.record.state == "running":
            self._collect(workers)
            if contender in self._waiting:
                self._waiting.remove(contender)
                self._start_or_skip(contender, workers)
            if self.stopped and not self._running:
                break
        if contender.record.state != "complete":
            if contender.record.state == "failed":
                raise DataError(
                    "The case as it is can't be measured.",
                    where=f"case {self.problem.case}",
                    found=contender.record.reason,
                    todo=f"Correct the case until `driftline run {self.problem.case}` trains.",
                )
            raise self._spending.too_small(*too_small)

    def _start_seconds(self) -> float:
        """The estimate of the case as it is, on all rungs."""
        start = self.problem.start()
        return sum(self.problem.estimate(start, rung).seconds for rung in range(len(self.problem.rungs)))

    def _fill(self, workers: Workers) -> None:
        """Start measurements while there are workers and budget."""
        while not self.stopped and len(self._running) < self.problem.workers:
            contender = self._waiting.pop(0) if self._waiting else self._final() or self._propose()
            if contender is None:
                return
            self._start_or_skip(contender, workers)

    def _final(self) -> Contender | None:
        """Once half of the budget is spent: the best of each arm, measured to its end."""
        if not self._finals.is_due(self._spending):
            return None
        self._waiting += self._finals.contenders(list(self.records.values()))
        return self._waiting.pop(0) if self._waiting else None

    def _combine(self) -> None:
        """Add what combines the best complete trials, as the last trial; its scores are those of its parts."""
        combination = self._finals.combination(list(self.records.values()))
        if combination is None or not self._race.is_new(combination.configuration):
            return
        contender = self._race.enter(self._study.ask().number, combination.configuration, None, combined=True)
        for rung, scores in enumerate(combination.scores):
            write_measurement(measurement_path(self.folder, combination.configuration, rung), scores, 0.0)
            self._race.take(contender, Measured(scores, 0.0))

    def _propose(self) -> Contender | None:
        """The sampler's next configuration that is new and allowed; None where the search stops."""
        from optuna.trial import TrialState

        while self._repeated < MOST_REPEATED:
            if nothing := self._nothing_holds():
                self.stopped = nothing
                return None
            if shortage := self._spending.shortage(Cost()):
                self.stopped = shortage
                return None
            if self._shortage_of_trials(1):
                if self._running:  # it may go on with its next rung
                    return None
                self._combine()
            if shortage := self._shortage_of_trials():
                self.stopped = shortage
                return None
            trial = self._study.ask()
            configuration = self.problem.suggest(trial)
            if not self._race.is_new(configuration):
                self._repeated += 1
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            contender = self._race.enter(trial.number, configuration, trial)
            if refusal := self.problem.refusal(configuration):
                self._repeated += 1
                self._race.end(contender, "refused", refusal)
                continue
            self._repeated = 0
            return contender
        self.stopped = self._shortage or "nothing new is left to try"
        return None

    def _nothing_holds(self) -> str:
        """Why to stop where every trial of many breaks a constraint of the case; empty where one held."""
        others = [record for record in self.records.values() if record.number]
        refused = [record for record in others if record.state == "refused"]
        if len(refused) < MOST_REFUSED or any(record.state in ("complete", "beaten") for record in others):
            return ""
        return f"none of {len(refused)} trials holds the case's constraints; the last one: {refused[-1].reason}"

    def _shortage_of_trials(self, more: int = 0) -> str:
        """Why no further trial may start, if so many more are to come after it."""
        limit = self._spending.limit.trials
        running = sum(each.contender.record.number not in self.records for each in self._running.values())
        self._spending.trials = len(self.records) + running
        is_spent = limit is not None and self._spending.trials >= limit - more
        return f"the budget of {limit} trials is spent" if is_spent else ""

    def _start_or_skip(self, contender: Contender, workers: Workers) -> None:
        """Start the next rung of a trial, unless it was measured before, or does not fit."""
        if contender.rung == len(self.problem.rungs):  # a finalist that was beaten on the last one
            self._race.finish(contender)
        record = contender.record
        while record.state == "running":
            path = measurement_path(self.folder, record.configuration, contender.rung)
            if (measured := read_measurement(path)) is None:
                break
            self._race.take(contender, measured)
            record = contender.record
        if record.state != "running":
            return
        cost = self._estimate(record, contender.rung)
        if shortage := self._spending.shortage(cost) or self._excess(contender):
            self._race.end(contender, "unfinished", f"about {cost.seconds:.1f} s do not fit: {shortage}")
            self._shortage = shortage
            self._misfits += not contender.is_finalist
            if self._misfits >= MOST_MISFITS or self._spending.shortage(Cost()):
                self.stopped = self._spending.shortage(cost) or self._spending.shortage(Cost(math.inf))
            return
        if cost.memory > (free := psutil.virtual_memory().available):
            self._race.end(
                contender, "refused", f"needs {cost.memory / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
            )
            return
        job = f"{record.number}/{contender.rung}/{time.time_ns()}"
        self._spending.reserve(job, cost)
        now = time.monotonic()
        share = max(GRACE, GRACE_FACTOR * cost.seconds)
        if record.arm not in self._ratios:  # the estimate is a guess
            share = (
                max(share, FIRST_SHARE * self._spending.seconds_left) if record.number else self._spending.seconds_left
            )
        self._running[job] = Running(contender, cost, now, now + min(share, self._spending.seconds_left))
        self._misfits, self._shortage = 0, ""
        workers.start(job, record.configuration, contender.rung)

    def _excess(self, contender: Contender) -> str:
        """Why a proposal is too slow for what is left: its rungs would take most of it. Empty when it is not."""
        if contender.rung or contender.is_finalist or not contender.record.number:
            return ""
        total = sum(self._estimate(contender.record, rung).seconds for rung in range(len(self.problem.rungs)))
        left = self._spending.seconds_left * self.problem.workers
        return f"{total:.0f} s in all, of {left:.0f} s that are left" if total > MOST_SHARE * left else ""

    def _estimate(self, record: TrialRecord, rung: int) -> Cost:
        cost = self.problem.estimate(record.configuration, rung)
        ratios = sorted(self._ratios.get(record.arm, ()))
        factor = SAFETY * ratios[len(ratios) // 2] if ratios else 1.0
        return Cost(cost.seconds * factor, cost.memory, cost.calls, cost.money)

    def _collect(self, workers: Workers) -> None:
        """Take what ended, and kill what is past its share."""
        now = time.monotonic()
        for job, running in self._running.items():
            if now > running.deadline:
                workers.kill(job)
        nearest = min((each.deadline for each in self._running.values()), default=now) - now
        for ended in workers.wait(min(WAIT, max(0.01, nearest))):
            self._settle(ended)

    def _settle(self, ended: Ended) -> None:
        running = self._running.pop(ended.job)
        contender, seconds = running.contender, time.monotonic() - running.started
        contender.seconds += seconds
        path = measurement_path(self.folder, contender.record.configuration, contender.rung)
        measured = None if ended.error else read_measurement(path)
        if measured is not None:
            self._spending.settle(ended.job, measured.scores.calls, measured.scores.money)
            raw = self.problem.estimate(contender.record.configuration, contender.rung).seconds
            if raw > 0:
                self._ratios.setdefault(contender.record.arm, []).append(seconds / raw)
            self._race.take(contender, measured)
            if contender.record.state == "running":
                self._waiting.insert(0, contender)
            return
        if time.monotonic() <= running.deadline:
            self._race.end(contender, "failed", ended.error)
        elif self._spending.seconds_left <= 0:
            self.stopped = self.stopped or self._spending.shortage(Cost()) or "the budget is spent"
            self._race.end(contender, "unfinished", self.stopped)
        else:
            self._race.end(contender, "failed", f"killed after {seconds:.1f} s, past its share of the budget")
