"""The state of a policy after a decision for which nothing is trained."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.backtest import PolicyState, apply_decision
from flows.champion_steps import History
from tasks.backtest.policies import POLICIES
from tasks.backtest.results import MonthResult, MonthScore
from tasks.monitor.results import Decision
from tasks.release.results import Release

NOW = datetime(2013, 5, 1, tzinfo=UTC)
NOTHING: Any = None  # a rollback reads neither run nor snapshot


def release(digest: str) -> Release:
    return Release(
        case="case",
        digest=digest * 64,
        as_of=NOW,
        folder=Path(digest),
        bento="",
        version="",
        run_id="",
        kind="tabular",
        columns=(),
    )


def decision(action: str) -> Decision:
    return Decision.model_validate(
        {
            "case": "case",
            "release": "b" * 64,
            "as_of": NOW,
            "action": action,
            "reasons": (),
            "evidence": "e" * 64,
            "to": "a" * 64 if action == "rollback" else "",
            "folder": Path(),
            "digest": "d" * 64,
        }
    )


def test_a_rollback_restores_the_predecessor():
    """The predecessor is champion again, nothing is trained, and the policy's history records it."""
    scored = MonthScore(release="b" * 64, rows=1, metrics={}, losses=Path())
    played = MonthResult(
        month=NOW, policy="decide", since=NOW, scored=scored, decision=None, action="rollback", challenge=None
    )
    before = PolicyState(release("b"), History(release("a")))
    result, state = apply_decision(NOTHING, played, decision("rollback"), before)
    assert (state.champion, state.history.predecessor, result.challenge) == (release("a"), None, None)
    assert [(past.outcome, past.release) for past in state.history.attempts] == [("released", "a" * 64)]


def test_each_policy_maps_decisions_to_its_actions():
    """One does nothing, one always retrains, one follows the decision."""
    for action in ("ignore", "alert", "recalibrate", "retrain", "rollback"):
        actions = {name: policy(decision(action)) for name, policy in POLICIES.items()}
        assert actions == {"never": "ignore", "monthly": "retrain", "decide": action}
