"""Search a better configuration of a case, on data that its gates never use."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from flows.case import LanguageCase, TabularCase
from flows.run_context import RunContext
from flows.steps import prepare_snapshot
from services.store.task import record_search_costs
from tasks.core.errors import CaseError
from tasks.features.task import training_frame
from tasks.search.adopt import changed_text
from tasks.search.budget import Clock
from tasks.search.config import Limit
from tasks.search.problem import Problem
from tasks.search.report import write_page
from tasks.search.results import SearchResult
from tasks.search.search import Observer, Progress, search, search_folder
from tasks.search.tabular.problem import TabularProblem, check_metric, fitting_share
from tasks.search.tabular.space import check_families
from tasks.search.tracking import trial_log

WORKERS = 2  # measurements side by side, each on one thread


def with_search(run: RunContext) -> RunContext:
    """The run of the best configuration that `search.budget` of its case finds; the same run without a budget.

    What a machine proposes must be better than the champion: the margin of the gate is 0.
    """
    case = run.case
    if case.search.budget is None or run.model:
        return run
    result = search_case(run, case.search.budget, lambda _: None)
    if not result.is_better:
        return run
    proposed = proposed_case(case, result)
    return replace(run, case=proposed, lineage={**run.lineage, "case_digest": proposed.digest})


def proposed_case(case: TabularCase | LanguageCase, result: SearchResult) -> TabularCase | LanguageCase:
    """The case with the configuration that a search chose, whose champion's gate has no margin."""
    gate = case.evaluate.champion_gate.model_copy(update={"margin": 0.0})
    update: dict[str, Any] = {"evaluate": case.evaluate.model_copy(update={"champion_gate": gate})}
    for section, new in result.best.change.items():
        own, owned = getattr(case, section), result.owned.get(section, ())
        values = {name: getattr(own, name) for name in own.model_fields_set - set(owned)}
        update[section] = None if new is None else type(own).model_validate({**values, **new})
    return case.model_copy(update=update)


def search_case(
    run: RunContext, budget: str, observe: Observer, *, preparing: Clock | None = None, problem: Problem | None = None
) -> SearchResult:
    """Search within a budget, log each trial in MLflow, record its cost, and write the report.

    Raises: what `search` raises.
    """
    config, case = run.settings, run.case
    problem = problem or problem_of(run, Limit.parse(budget))
    with trial_log(config.tracking, case.name, problem.key) as log:

        def note(progress: Progress) -> None:
            log.log(progress.trial)
            observe(progress)

        try:
            result = search(problem, case.search, budget, state=config.state, observe=note, preparing=preparing)
        finally:
            folder = search_folder(config.state, problem)
            record_search_costs(case.name, problem.key, folder, case.price.machine_hour, config)
        text = (case.folder / "case.yaml").read_text("utf-8")
        log.log(write_page(result, difference(result, result.chosen, text)))
        log.log(result)
    return result


def adopted(result: SearchResult, number: int, text: str) -> str:
    """The text of case.yaml with a trial's configuration. Raises: CaseError when it can't be changed by lines."""
    return text if number == 0 else changed_text(text, result.trial(number).change, result.owned)


def difference(result: SearchResult, number: int, text: str) -> str:
    """What adopting a trial changes in case.yaml; empty for the case as it is."""
    try:
        after = adopted(result, number, text)
    except CaseError as error:
        return str(error)
    names = ("case.yaml", "case.yaml, adopted")
    return "\n".join(difflib.unified_diff(text.splitlines(), after.splitlines(), *names, lineterm=""))


def problem_of(run: RunContext, limit: Limit) -> Problem:
    """What is searched of a case. Raises: CaseError for settings that don't fit it."""
    if isinstance(run.case, TabularCase):
        return _table(run, run.case, limit)
    from flows.language_search import language_problem  # imports MLflow's optimisers, which takes seconds

    return language_problem(run, run.case)


def _table(run: RunContext, case: TabularCase, limit: Limit) -> TabularProblem:
    default = "auc" if case.target.task == "classification" else "r2"
    metric = check_metric(case.search.metric or default, case.target.task)
    check_families(case.search.families, bool(case.search.monotone))
    frame = training_frame(case.frame_spec, prepare_snapshot(run), run.settings.state)
    slowest = case.search.ms_per_row or case.evaluate.ms_per_row
    share = fitting_share(case.train, frame, limit.seconds)
    fairness = case.evaluate.fairness
    return TabularProblem(
        case.name, frame, case.target, case.train, case.search, metric, slowest, WORKERS, share, fairness
    )
