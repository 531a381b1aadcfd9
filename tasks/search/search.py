"""One search from its budget to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import lock
from tasks.core.progress import progress_step
from tasks.search.budget import Clock, Spending, Spent
from tasks.search.config import Limit, Search
from tasks.search.engine import Engine
from tasks.search.measurement import losses_of
from tasks.search.problem import Problem
from tasks.search.race import Race
from tasks.search.results import SearchResult, TrialRecord, write_result
from tasks.search.selection import choose, compare, front, importance, is_shown_better, knee, optimism

if TYPE_CHECKING:
    import numpy as np

FOLDER = "searches"  # in the state folder


@dataclass(frozen=True)
class Progress:
    """What a search knows at the end of a trial."""

    trial: TrialRecord
    trials: int
    best: TrialRecord | None
    metric: str
    spent: Spent
    limit: Limit


Observer = Callable[[Progress], None]


def search(
    problem: Problem,
    settings: Search,
    budget: str,
    *,
    state: Path,
    observe: Observer,
    preparing: Clock | None = None,
) -> SearchResult:
    """Search within a budget. One with an equal key goes on where it ended, and its budget counts from its beginning.

    `preparing`: the clock of the time before, which counts.
    Raises: InputError for a budget too small for one trial, or a case that can't be searched; Busy; Unavailable.
    """
    limit, folder = Limit.parse(budget), search_folder(state, problem)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        lock(folder / "lock", f"The search of {problem.case}"),
        progress_step("search") as step,
        Spending(limit, folder, preparing) as spending,
    ):
        engine = Engine(problem, spending, folder, settings.seed, _Counter(problem.metric, spending, observe))
        engine.run()
        result = _result(engine, settings, spending, budget)
        write_result(result)
        step.figure = f"{len(result.trials)} trials, {result.seconds:.0f} s"
    return result


def search_folder(state: Path, problem: Problem) -> Path:
    return state / FOLDER / problem.case / problem.key[:16]


class _Counter:
    """Turns ended trials into progress."""

    def __init__(self, metric: str, spending: Spending, observe: Observer) -> None:
        self._metric = metric
        self._spending = spending
        self._observe = observe

    def __call__(self, race: Race, trial: TrialRecord) -> None:
        best = race.best.record if race.best else None
        spent, limit = self._spending.spent, self._spending.limit
        self._observe(Progress(trial, len(race.records), best, self._metric, spent, limit))


def _result(engine: Engine, settings: Search, spending: Spending, budget: str) -> SearchResult:
    import numpy as np

    problem = engine.problem
    trials = tuple(engine.records[number] for number in sorted(engine.records))
    adoptable = [trial for trial in trials if trial.number == 0 or not problem.exceeded(trial)]
    chosen = choose(adoptable, settings.prefer, settings.within)
    losses: Mapping[int, np.ndarray] = {
        trial.number: np.concatenate(losses_of(engine.folder, trial)) for trial in trials if trial.state == "complete"
    }
    clusters = [cluster for rung in range(len(problem.rungs)) for cluster in problem.clusters(rung) or ()]
    difference = compare(losses[chosen.number], losses[0], clusters or None) if chosen.number else None
    tried = sum(trial.number != 0 and trial.loss is not None for trial in trials)
    best_front = front(adoptable)
    bend = knee(best_front)
    spent = spending.spent
    return SearchResult(
        case=problem.case,
        key=problem.key,
        metric=problem.metric,
        folder=engine.folder,
        trials=trials,
        front=tuple(trial.number for trial in best_front),
        knee=bend.number if bend else None,
        chosen=chosen.number,
        comparison=difference.sentence if difference else "",
        is_better=is_shown_better(losses, chosen.number, tried, clusters or None, seed=settings.seed),
        optimism=optimism(losses, settings.seed),
        importance=importance(trials),
        owned={name: tuple(keys) for name, keys in problem.owned.items()},
        examples=len(losses[0]),
        rungs=tuple(problem.rungs),
        stopped=engine.stopped,
        seconds=spent.seconds,
        calls=spent.calls,
        money=spent.money,
        budget=budget,
    )
