"""A language case as the problem of a search, on its newest snapshot."""

from __future__ import annotations

from dataclasses import replace

from flows.case import LanguageCase
from flows.run_context import RunContext
from flows.steps import language_spec, prepare_snapshot
from tasks.core.errors import CaseError, NoDataYet
from tasks.data.task import open_model
from tasks.language.messages import SYSTEM
from tasks.language.prompt_file import load_prompt, prompt_files
from tasks.language.prompts import Prompt
from tasks.release.results import Release
from tasks.search.config import OtherModel
from tasks.search.language.bench import LanguageTask, OtherBase, find_model
from tasks.search.language.problem import LanguageProblem, questions_of
from tasks.search.language.prompt_space import PromptSpace, literal
from tasks.search.language.space import LanguageSpace
from tasks.train.language.preflight import layers_of

SHORTER = "Answer in one short sentence."
ABSTAIN = "If you do not know the answer, write: {{ abstain }}"


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
        others={name: _other_base(run, case, model) for name, model in case.search.models.items()},
        scorers=case.evaluate.scorers,
        tuning=case.train,
        practises=case.practises,
    )
    pool = questions_of(task)[1]
    space = LanguageSpace(
        prompts=PromptSpace(case.prompt, case.answer.texts, instructions_of(case), pool),
        knowledge=case.knowledge,
        tuning=case.train,
        layers=layers_of(spec.base) if case.train else 0,
        weights=case.serve.weights,
        models=tuple(case.search.models),
        has_schema=case.answer.json_schema is not None,
    )
    return LanguageProblem(task, space, find_model(task) if case.train else None, case.search.call_cost)


def _other_base(run: RunContext, case: LanguageCase, model: OtherModel) -> OtherBase:
    files = open_model(model, case.folder, run.settings.state)
    price = model.price or case.price
    if files.upstream and "machine_hour" not in price.model_fields_set:  # as of the case's own model behind an address
        price = price.model_copy(update={"machine_hour": 0.0})
    return OtherBase(model=model, files=files, price=price)


def prompt_problem(run: RunContext, case: LanguageCase, champion: Release | None) -> LanguageProblem:
    """The prompts of a language case; where it tunes, the champion's model answers.

    Raises: as `language_problem`; CaseError when no prompt takes part in the answers; NoDataYet without a champion.
    """
    check_searchable(case)
    if case.train and champion is None:
        raise NoDataYet(f"Case {case.name} has no model yet.", todo=f"driftline run {case.name}")
    problem = language_problem(run, case)
    space = replace(problem.space, is_prompt_only=True)
    return replace(problem, space=space, tuned=champion.model if case.train and champion else None)


def check_searchable(case: LanguageCase) -> None:
    """Raises: CaseError when there is nothing to compare prompts by, or no prompt takes part in the answers."""
    check_questions(case)
    if case.knowledge and case.knowledge.answer_by == "extract":
        raise CaseError(
            f"No prompt takes part in the answers of case {case.name}.",
            where=f"{case.folder / 'case.yaml'}, knowledge.answer_by",
            found="extract: answers are sentences of the passages",
            allowed="answer_by: model",
            todo=f"driftline search {case.name} compares both ways.",
        )


def check_questions(case: LanguageCase) -> None:
    """Raises: CaseError when there is nothing to compare answers by."""
    if case.pairs.none:
        raise CaseError(
            f"Case {case.name} has no questions to compare answers by.",
            where=f"{case.folder / 'case.yaml'}, pairs",
            found="neither pairs.sources nor pairs.templates",
            todo="Add a source of lines with prompt, and completion or required_facts: docs/guides/language-case.md.",
        )


def instructions_of(case: LanguageCase) -> list[str]:
    """Templates that may replace the prompt's system message: those of its drafts, its baseline, and hints."""
    own = _instruction(case.prompt)
    found = [_instruction(load_prompt(path)) for path in prompt_files(case.folder)]
    found.append(literal(case.prompt.baseline.replace("{schema}", "")))
    hints = [SHORTER] if case.answer.format == "text" else []
    hints += [ABSTAIN] if case.answer.abstain is not None and "abstain" not in own else []
    found += [f"{own}\n{hint}".lstrip() for hint in hints]
    found.append(literal(case.description))
    return [text for text in dict.fromkeys(found) if text.strip() and text != own]


def _instruction(prompt: Prompt) -> str:
    """The system message of a prompt as a template."""
    if not prompt.messages:
        return literal(prompt.system)
    first = prompt.messages[0]
    return first.content if first.role == SYSTEM else ""
