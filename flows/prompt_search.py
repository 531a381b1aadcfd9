"""Search a better prompt for a language case, on its newest snapshot."""

from __future__ import annotations

from flows.case import LanguageCase
from flows.run_context import RunContext
from flows.steps import language_spec, prepare_snapshot
from tasks.core.errors import CaseError, NoDataYet
from tasks.evaluate.language.call_budget import Limit
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.prompt_search import PromptSearch, PromptTask, search_prompt
from tasks.evaluate.language.prompt_space import PromptSpace, literal
from tasks.language.messages import SYSTEM
from tasks.language.prompt_file import load_prompt, prompt_files
from tasks.language.prompts import Prompt
from tasks.release.results import Release

SHORTER = "Answer in one short sentence."
ABSTAIN = "If you do not know the answer, write: {{ abstain }}"


def find_prompt(run: RunContext, case: LanguageCase, limit: Limit, champion: Release | None) -> PromptSearch:
    """Search from the prompt of the case, on the pairs that its gates never use; the champion's model answers if tuned.

    Raises: CaseError when the case has no question, or no prompt takes part in its answers; NoDataYet
    when a tuned case has no model; InputError, DataError.
    """
    check_searchable(case)
    if case.train and champion is None:
        raise NoDataYet(f"Case {case.name} tunes, and has no model yet.", todo=f"driftline run {case.name}")
    snapshot = prepare_snapshot(run)
    spec = language_spec(run, case, snapshot)
    evaluation = EvaluationRun(
        snapshot.path / "pairs", spec, run.settings.threads, run.settings.state, case.evaluate.scorers
    )
    model = champion.model if case.train and champion else spec.base.served
    task = PromptTask(case.name, evaluation, snapshot.digest, model, case.evaluate.champion_gate.loss)
    space = PromptSpace(case.prompt, case.answer.texts, instructions_of(case), task.questions[1])
    return search_prompt(task, space, limit, run.settings.places)


def check_searchable(case: LanguageCase) -> None:
    """Raises: CaseError when there is nothing to compare prompts by, or no prompt takes part in the answers."""
    where = str(case.folder / "case.yaml")
    if case.pairs.none:
        raise CaseError(
            f"Case {case.name} has no questions to compare prompts by.",
            where=f"{where}, pairs",
            found="neither pairs.sources nor pairs.templates",
            todo="Add a source of lines with prompt, and completion or required_facts: docs/guides/language-case.md.",
        )
    if case.knowledge and case.knowledge.answer_by == "extract":
        raise CaseError(
            f"No prompt takes part in the answers of case {case.name}.",
            where=f"{where}, knowledge.answer_by",
            found="extract: answers are sentences of the passages",
            allowed="answer_by: model",
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
