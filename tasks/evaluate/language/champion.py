"""The champion beside a candidate: its answers to the same questions, and a first verdict on some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tasks.core.errors import DataError, Unavailable
from tasks.core.progress import progress_step
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.language.arms import Arms
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.first_questions import TITLE, first_verdict
from tasks.evaluate.language.prompt_tests import CheckedAnswer, PromptBench, run_prompt_tests
from tasks.evaluate.results import Criterion
from tasks.knowledge.answers.answerer import SETTINGS
from tasks.language.open_engine import model_file
from tasks.language.prompts import PROMPT, SYSTEM_TEXT, Prompt, released_prompt

if TYPE_CHECKING:
    import pandas as pd

Value = TypeVar("Value")


def value_or_reason(compute: Callable[[], Value]) -> tuple[Value | None, str]:
    """A value, or the reason why it is missing: the criteria that need it then fail with this reason."""
    try:
        return compute(), ""
    except (DataError, Unavailable) as error:
        return None, f"{error.what} {error.found.strip().splitlines()[-1] if error.found.strip() else ''}".strip()


def judge_first(
    run: EvaluationRun, passages: Arms | None, folder: Path, config: LanguageEvaluation, *, champion: Path | None
) -> Criterion | None:
    """The verdict on the first questions; None without a champion that answers them."""
    first = run.first_questions
    if champion is None or first.empty:
        return None
    with progress_step(TITLE) as step:
        if passages:
            served, _ = passages.served(first)
        else:
            served, _ = run.answers("served", model_file(folder), first)
        of_champion, problem = answers_of_champion(replace(run, first_only=True), passages, champion, None)
        if of_champion is None:
            step.figure = problem
            return None
        verdict = first_verdict(config.champion_gate, served, of_champion)
        step.figure = verdict.note
    return verdict


def answers_of_champion(
    run: EvaluationRun, passages: Arms | None, model: Path | None, digest: str | None
) -> tuple[pd.DataFrame | None, str]:
    """The champion's answers to the ordinary pairs, or why there are none; a first candidate is no problem."""
    if model is None:
        return None, "" if digest is None else f"champion {digest[:12]} has no model file here"
    prompt = sealed_prompt(model)
    ordinary = run.evaluation_set[~run.evaluation_set["unsafe"]]
    if passages and (model.parent / SETTINGS).is_file():
        answers, problem = value_or_reason(lambda: passages.champion(model, ordinary, prompt))
    else:
        answers, problem = value_or_reason(lambda: run.answers("champion", model, ordinary, prompt))
    return (answers[0], "") if answers else (None, f"the champion can't answer: {problem}")


def sealed_prompt(model: Path) -> Prompt | None:
    """The prompt beside a release's model; None: it is no release."""
    is_release = any((model.parent / name).is_file() for name in (PROMPT, SYSTEM_TEXT))
    return released_prompt(model.parent) if is_release else None


def champion_tests(run: EvaluationRun, model: Path, bench: PromptBench, passages: Arms | None) -> list[CheckedAnswer]:
    """The champion's answers, by its own prompt and passages, to the tests of the candidate's."""
    prompt = run.spec.chat.prompt
    assert prompt.tests
    if passages and (model.parent / SETTINGS).is_file():
        bench = replace(bench, answerer=passages.champion_answerer(model.parent))
    return run_prompt_tests(model, sealed_prompt(model) or prompt, prompt.tests, bench)
