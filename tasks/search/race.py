"""The race: each trial is compared with the best so far, on the examples that both were measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.core.config import digest_of
from tasks.search.contender import Contender
from tasks.search.measurement import Measured, losses_of
from tasks.search.problem import Configuration, Problem
from tasks.search.results import State, TrialRecord, read_trials, trial_path, write_trial
from tasks.search.selection import is_beaten

if TYPE_CHECKING:
    from optuna import Study, Trial

Listener: TypeAlias = "Callable[[Race, TrialRecord], None]"


class Race:
    """The trials of a search: those that ended by number, and the best that others are compared with."""

    def __init__(self, problem: Problem, study: Study, folder: Path, listener: Listener) -> None:
        """Begin, or go on with what another process measured before it was killed."""
        self.records: dict[int, TrialRecord] = {}
        self.best: Contender | None = None
        self._problem = problem
        self._study = study
        self._folder = folder
        self._listener = listener
        self._seen: set[str] = set()
        self._worst = -math.inf  # loss of all
        for record in read_trials(folder):
            if record.state in ("running", "unfinished"):  # its measured rungs are found again
                trial_path(folder, record.number).unlink()
                if record.state == "unfinished" and record.parameters:
                    study.enqueue_trial(record.parameters)
                continue
            self.records[record.number] = record
            self._worst = max(self._worst, record.loss or -math.inf)
            self._seen.add(digest_of(record.configuration))
            if record.state == "complete":
                self._promote(Contender(record, None, losses_of(folder, record)))

    def is_new(self, configuration: Configuration) -> bool:
        """Whether it was not entered before."""
        return digest_of(configuration) not in self._seen

    def enter(
        self, number: int, configuration: Configuration, trial: Trial | None, *, combined: bool = False
    ) -> Contender:
        """A new trial. One that is combined of others is not raced."""
        self._seen.add(digest_of(configuration))
        record = TrialRecord(
            number=number,
            arm=self._problem.arm(configuration),
            label=self._problem.describe(configuration),
            configuration=configuration,
            change=self._problem.as_change(configuration),
            parameters=dict(trial.params) if trial else {},
            combined=combined,
        )
        write_trial(self._folder, record)
        return Contender(record, trial, is_finalist=combined)

    def take(self, contender: Contender, measured: Measured) -> None:
        """Compare a trial by one more rung, which may end it."""
        scores = measured.scores
        contender.losses.append(scores.losses)
        rungs, record = contender.rung, contender.record
        update = {
            "rungs": rungs,
            "loss": contender.mean(),
            "best": self.best.mean(rungs) if self.best else None,
            "calls": record.calls + scores.calls,
            "money": record.money + scores.money,
            "seconds": record.seconds + measured.seconds,
            "call_seconds": min(filter(None, (record.call_seconds, scores.call_seconds)), default=0.0),
            "call_cost": max(record.call_cost, scores.call_cost),
            "size": max(record.size, scores.size),
            "metrics": {**record.metrics, **scores.metrics},
        }
        contender.record = record.model_copy(update=update)
        if record.number and (refusal := scores.refusal or self._problem.exceeded(contender.record)):
            self.end(contender, "refused", refusal)
        elif self.best and not contender.is_finalist and contender is not self.best and self._is_beaten(contender):
            self.end(contender, "beaten", "")
        elif rungs == len(self._problem.rungs):
            self.finish(contender)
        elif not contender.is_finalist:  # a killed search finds it as it was
            write_trial(self._folder, contender.record)

    def finish(self, contender: Contender) -> None:
        """End a trial that was measured on every rung."""
        self.end(contender, "complete", contender.record.reason)
        self._promote(contender)

    def end(self, contender: Contender, state: State, reason: str) -> None:
        """Write how a trial ended, and let the sampler learn from it."""
        from optuna.trial import TrialState

        record = contender.record.model_copy(update={"state": state, "reason": reason})
        contender.record = self.records[record.number] = record
        write_trial(self._folder, record)
        number = record.number
        if record.loss is not None:
            self._worst = max(self._worst, record.loss)
        if state == "complete":
            self._study.tell(number, contender.mean(), skip_if_finished=True)
        elif state == "beaten" and self.best:
            # by its distance from the best: Optuna would rank pruned trials by how far they came
            behind = contender.mean() - self.best.mean(contender.rung)
            self._study.tell(number, self.best.mean() + behind, skip_if_finished=True)
        elif self.best and (state == "refused" or (state == "unfinished" and not contender.losses)):
            # too slow, or against a constraint: the sampler would suggest for ever what it knows nothing of
            self._study.tell(number, self._worst, skip_if_finished=True)
        else:
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        self._listener(self, record)

    def _is_beaten(self, contender: Contender) -> bool:
        import numpy as np

        assert self.best is not None
        clusters: list[Any] = []
        for rung in range(contender.rung):
            clusters += self._problem.clusters(rung) or ()
        losses, best = np.concatenate(contender.losses), np.concatenate(self.best.losses[: contender.rung])
        return is_beaten(losses, best, clusters or None)

    def _promote(self, contender: Contender) -> None:
        if not contender.record.combined and (self.best is None or contender.mean() < self.best.mean()):
            self.best = contender
