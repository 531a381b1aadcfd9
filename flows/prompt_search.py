"""Search a better prompt for a language case, on its newest snapshot."""

from __future__ import annotations

from flows.case import LanguageCase
from flows.run_context import RunContext
from flows.steps import language_spec, prepare_snapshot
from services.store.task import evaluation_cost
from tasks.core.errors import CaseError, NoDataYet
from tasks.evaluate.language.call_budget import Limit
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.prompt_search import PromptSearch, PromptTask, search_prompt
from tasks.evaluate.language.prompt_space import PromptSpace, literal
from tasks.knowledge.answers.answerer import open_answerer
from tasks.language.embedder import Embedder
from tasks.language.messages import SYSTEM
from tasks.language.prompt_file import load_prompt, prompt_files
from tasks.language.prompts import Prompt
from tasks.release.results import Release
from tasks.release.seal import EMBEDDER

SHORTER = "Answer in one short sentence."
ABSTAIN = "If you do not know the answer, write: {{ abstain }}"


def find_prompt(run: RunContext, case: LanguageCase, limit: Limit, champion: Release | None) -> PromptSearch:
    """Search from the prompt of the case, on the pairs that its gates never use; the champion's model answers if tuned.

    With knowledge, the passages are the champion's.
    Raises: CaseError when the case has no question, or no prompt takes part in its answers; NoDataYet when a champion
    is needed and there is none; InputError, DataError.
    """
    check_searchable(case)
    if champion is None and (case.train or case.knowledge):
        missing = "model" if case.train else "passages"
        raise NoDataYet(f"Case {case.name} has no {missing} yet.", todo=f"driftline run {case.name}")
    snapshot = prepare_snapshot(run)
    spec, state = language_spec(run, case, snapshot), run.settings.state
    task = PromptTask(
        case.name,
        EvaluationRun(snapshot.path / "pairs", spec, run.settings.threads, state, case.evaluate.scorers),
        snapshot.digest,
        model=champion.model if case.train and champion else spec.base.served,
        loss=case.evaluate.champion_gate.loss,
        answerer=open_answerer(champion.folder, Embedder(champion.folder / EMBEDDER))
        if case.knowledge and champion
        else None,
        knowledge_digest=champion.digest if case.knowledge and champion else "",
    )
    pool, has_passages = task.questions[1], case.knowledge is not None
    space = PromptSpace(case.prompt, case.answer.texts, instructions_of(case), pool, has_passages=has_passages)
    with evaluation_cost(case.name, case.answer_price, run.settings):
        return search_prompt(task, space, limit, run.settings.places)


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
