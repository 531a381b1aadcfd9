from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluate.config import Bound, ChampionGate, SliceGate
from tasks.evaluate.criteria import bound_criterion, decide, losses_criterion, slice_criterion
from tasks.evaluate.report import explain, lines
from tasks.evaluate.results import Criterion, Verdict
from tasks.train.metrics import losses

OVERALL = {"rows": 1000, "auc": 0.8, "brier": 0.1}
GATE = SliceGate(metric="auc", at_most_worse=0.1, min_rows=100)
CHAMPION = ChampionGate(loss="brier", margin=0.01, min_rows=100)


def criterion(observed: float | None, passed: bool, **more: bool) -> Criterion:
    return Criterion(name="c", observed=observed, required="", passed=passed, **more)


@pytest.mark.parametrize(
    ("criteria", "decision"),
    [
        ([criterion(1, True), criterion(None, True)], "promote"),
        ([criterion(1, True), criterion(1, False)], "reject"),
        ([criterion(1, True), criterion(None, False)], "insufficient evidence"),
        ([criterion(1, False), criterion(None, False)], "reject"),
        ([], "insufficient evidence"),
        ([criterion(1, True), criterion(1, False, blocking=False)], "promote"),
        ([criterion(1, False, blocking=False)], "insufficient evidence"),
        ([criterion(1, True), criterion(1, False, conclusive=False)], "insufficient evidence"),
    ],
)
def test_the_decision_fails_closed(criteria: list[Criterion], decision: str) -> None:
    """One failure rejects; what can't be computed never promotes; nor does nothing at all; warnings don't count."""
    assert decide(criteria) == decision


def test_bounds_hold_on_their_side() -> None:
    """At the bound passes, beyond it fails, not there fails."""
    assert bound_criterion(Bound(metric="auc", at_least=0.8), OVERALL).passed
    assert not bound_criterion(Bound(metric="auc", at_least=0.81), OVERALL).passed
    assert bound_criterion(Bound(metric="brier", at_most=0.1), OVERALL).passed
    assert not bound_criterion(Bound(metric="brier", at_most=0.09), OVERALL).passed
    missing = bound_criterion(Bound(metric="log_loss", at_most=1), OVERALL)
    assert (missing.observed, missing.passed) == (None, False)


@pytest.mark.parametrize(
    ("slices", "observed", "passed", "note"),
    [
        ({"a": {"rows": 500, "auc": 0.75}, "b": {"rows": 500, "auc": 0.85}}, 0.05, True, "worst: a"),
        ({"a": {"rows": 500, "auc": 0.65}, "b": {"rows": 500, "auc": 0.85}}, 0.15, False, "worst: a"),
        ({"a": {"rows": 99, "auc": 0.1}, "b": {"rows": 500, "auc": 0.8}}, 0.0, True, "worst: b"),
        ({"a": {"rows": 99, "auc": 0.1}}, None, False, "no slice has 100 rows"),
        ({"a": {"rows": 100}, "b": {"rows": 500, "auc": 0.8}}, None, False, "can't be computed for a"),
        ({"a": {"rows": 100}, "b": {"rows": 500, "auc": 0.6}}, 0.2, False, "worst: b"),
        (None, None, False, "no column town"),
    ],
)
def test_no_slice_may_be_far_worse(slices: dict | None, observed: float | None, passed: bool, note: str) -> None:
    """Small slices are not gated; a big one that can't be measured, or none to measure, fails."""
    found = slice_criterion(GATE, "town", OVERALL, slices)
    assert found.observed == (observed if observed is None else pytest.approx(observed))
    assert found.passed is passed
    assert note in found.note
    assert not slice_criterion(GATE, "town", {"rows": 3}, slices).passed


def test_the_champion_gate() -> None:
    """None yet passes; too few rows or an unreadable champion fail without an observation; worse fails with one."""
    random = np.random.default_rng(0)
    p = random.beta(2, 5, 2000)
    y = (random.random(2000) < p).astype(float)
    bad = np.clip(p + random.normal(0, 0.4, 2000), 0, 1)
    mine, bad = losses("brier", y, p), losses("brier", y, bad)
    first = losses_criterion(CHAMPION, mine, None)
    assert (first.passed, first.note) == (True, "no champion yet")
    unread = losses_criterion(CHAMPION, mine, None, "its file is damaged")
    assert (unread.passed, unread.observed, unread.note) == (False, None, "its file is damaged")
    few = losses_criterion(CHAMPION, mine[:99], mine[:99])
    assert (few.passed, few.observed) == (False, None)
    assert "100 are needed" in few.note
    assert losses_criterion(CHAMPION, mine, mine).passed
    assert losses_criterion(CHAMPION, mine, bad).passed
    worse = losses_criterion(CHAMPION, bad, mine)
    assert not worse.passed
    assert worse.observed is not None
    assert worse.observed > 0.01


def test_a_verdict_lists_each_criterion(tmp_path) -> None:
    """Names, observed and required values, notes; a timing that is not there reads as a dash."""
    criteria = (
        Criterion(name="auc", observed=0.71234, required=">= 0.7", passed=True),
        Criterion(name="brier", observed=0.3, required="<= 0.2", passed=False),
        Criterion(name="champion_brier", observed=None, required="<= 0", passed=False, note="unreadable"),
    )
    verdict = Verdict(decision="reject", criteria=criteria, metrics={}, champion=None, scores=tmp_path, digest="0" * 64)
    table = explain(verdict).splitlines()
    assert table[0] == "verdict: reject (there is no champion yet)"
    assert len({len(line) for line in table[2:]}) == 1
    assert "| FAIL | brier          | 0.3      | <= 0.2   |" in table[5]
    assert "unreadable" in lines(verdict)
    assert "n/a" in lines(verdict)
