"""Known-bad candidates against the gates of a case, before a release."""

from __future__ import annotations

from flows.case import LanguageCase, TabularCase
from tasks.core.progress import progress_step
from tasks.evaluate.results import Verdict
from tasks.govern.selftest import Tested, require_caught, run_selftest
from tasks.train.results import Candidate


def selftest_gates(case: TabularCase | LanguageCase, candidate: Candidate, verdict: Verdict) -> list[Tested]:
    """What the gates made of each known-bad candidate; none where the case does not test them before a release.

    Raises: GateFailed when one would be released.
    """
    if not case.evaluate.selftest:
        return []
    with progress_step("test the gates with known-bad candidates") as step:
        if isinstance(case, TabularCase):
            tested = run_selftest(candidate, case.target, case.train, case.evaluate)
        else:
            tested = _selftest_language(case, verdict)
        require_caught(case.name, tested)
        step.figure = f"all {len(tested)} refused"
    return tested


def _selftest_language(case: LanguageCase, verdict: Verdict) -> list[Tested]:
    import pandas as pd

    from tasks.govern.bad_answers import run_language_selftest

    return run_language_selftest(pd.read_parquet(verdict.scores), case.answer, case.evaluate)
