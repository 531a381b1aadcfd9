"""A language case as the problem of a search, on its newest snapshot."""

from __future__ import annotations

from flows.case import LanguageCase
from flows.prompt_search import check_questions, instructions_of
from flows.run_context import RunContext
from flows.steps import language_spec, prepare_snapshot
from tasks.evaluate.language.prompt_space import PromptSpace
from tasks.search.language.bench import LanguageTask, find_model
from tasks.search.language.problem import LanguageProblem, questions_of
from tasks.search.language.space import LanguageSpace
from tasks.train.language.preflight import layers_of


def language_problem(run: RunContext, case: LanguageCase) -> LanguageProblem:
    """What can be tried in a language case. Raises: CaseError or DataError when there is nothing to compare arms by."""
    check_questions(case)
    snapshot = prepare_snapshot(run)
    spec = language_spec(run, case, snapshot)
    task = LanguageTask(
        origin=run.origin,
        snapshot=snapshot,
        spec=spec,
        threads=case.train.threads if case.train else run.settings.threads,
        loss=case.evaluate.champion_gate.loss,
        price=case.answer_price,
        scorers=case.evaluate.scorers,
        tuning=case.train,
        practises=case.practises,
    )
    pool = questions_of(task)[1]
    prompts = PromptSpace(
        case.prompt, case.answer.texts, instructions_of(case), pool, has_passages=case.knowledge is not None
    )
    space = LanguageSpace(
        prompts=prompts,
        knowledge=case.knowledge,
        tuning=case.train,
        layers=layers_of(spec.base) if case.train else 0,
        weights=case.serve.weights,
        has_schema=case.answer.json_schema is not None,
    )
    return LanguageProblem(task, space, find_model(task) if case.train else None, case.search.call_cost)
