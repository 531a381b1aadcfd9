"""`driftline prompt test`: a prompt's test set, answered by the case's model, beside the champion's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cli.prompt_reference import language_case, resolve_prompt
from flows.case import LanguageCase
from tasks.core.console import PlainTable, console
from tasks.core.errors import CaseError, GateFailed, InsufficientEvidence, NoDataYet
from tasks.core.settings import settings
from tasks.evaluate.criteria import decide
from tasks.evaluate.language.prompt_tests import CheckedAnswer, PromptBench, prompt_criteria, run_prompt_tests
from tasks.evaluate.results import Criterion
from tasks.knowledge.answers.answerer import open_answerer
from tasks.language.embedder import Embedder
from tasks.language.prompt_tests import PromptTests
from tasks.language.prompts import released_prompt
from tasks.release.results import Release
from tasks.release.seal import EMBEDDER
from tasks.release.task import find_champion


def test_prompt(name: str, reference: str | None, as_json: bool) -> None:
    """Print each test with its failed checks, and the criteria.

    Raises: CaseError without tests; GateFailed unless the decision is to promote.
    """
    case, config = language_case(name), settings()
    prompt = resolve_prompt(case, reference).prompt
    tests = prompt.tests or case.prompt.tests
    if tests is None:
        raise CaseError(
            f"The prompt {prompt.label} has no tests.",
            where=str(case.folder / "prompts"),
            todo=f"Write prompts/{prompt.name or 'NAME'}.tests.yaml: docs/guides/prompts.md shows one.",
        )
    champion = find_champion(name, config.tracking, config.state)
    bench = bench_of(case, champion)
    answers = run_prompt_tests(model_of(case, champion), prompt, tests, bench)
    other = run_prompt_tests(champion.model, released_prompt(champion.folder), tests, bench) if champion else None
    criteria = prompt_criteria(tests, answers, other)
    decision = decide(criteria)
    if as_json:
        rows = [answer.model_dump(mode="json") for answer in answers]
        shown = [criterion.model_dump(mode="json") for criterion in criteria]
        print(json.dumps({"prompt": prompt.label, "decision": decision, "criteria": shown, "answers": rows}, indent=2))
    else:
        _print(tests, answers, criteria)
    if decision != "promote":
        what = f"The tests of {prompt.label}: {decision}."
        if decision == "insufficient evidence":
            raise InsufficientEvidence(what, todo="Add as many tests as the notes name.")
        raise GateFailed(what, todo="Correct the prompt, or its tests.")


def bench_of(case: LanguageCase, champion: Release | None) -> PromptBench:
    """What answers the tests of a case; with knowledge, its champion's passages, so that prompts differ alone.

    Raises: NoDataYet when a case with knowledge has no champion.
    """
    config, answerer = settings(), None
    if case.knowledge:
        if champion is None:
            raise NoDataYet(f"Case {case.name} has no passages yet.", todo=f"driftline run {case.name}")
        answerer = open_answerer(champion.folder, Embedder(champion.folder / EMBEDDER))
    return PromptBench(
        case.serve,
        case.model.context,
        config.threads,
        config.state,
        case.answer.json_schema,
        case.evaluate.cpu_price_per_hour,
        answerer,
    )


def model_of(case: LanguageCase, champion: Release | None) -> Path:
    """The base; of a case that tunes, the champion's model. Raises: NoDataYet when that does not exist yet."""
    from tasks.data.task import open_model

    if case.train is None:
        return open_model(case.model, case.folder, settings().state).served
    if champion is None:
        raise NoDataYet(f"Case {case.name} tunes, and has no model yet.", todo=f"driftline run {case.name}")
    return champion.model


def _print(tests: PromptTests, answers: Sequence[CheckedAnswer], criteria: Sequence[Criterion]) -> None:
    table = PlainTable("test", "passed", "failed checks")
    for at, test in enumerate(tests.tests):
        of_test = [answer for answer in answers if answer.test == at]
        failed = dict.fromkeys(check for answer in of_test for check in answer.failed)
        passed = sum(not answer.failed for answer in of_test)
        table.add_row(test.message[:60], f"{passed} of {len(of_test)}", "; ".join(failed))
    console.print(table)
    results = PlainTable("", "criterion", "observed", "required", "note")
    for each in criteria:
        mark = "pass" if each.passed else "FAIL" if each.observed is not None and each.conclusive else "n/a"
        observed = "" if each.observed is None else f"{each.observed:.4g}"
        results.add_row(mark, each.name, observed, each.required, each.note)
    console.print(results)
