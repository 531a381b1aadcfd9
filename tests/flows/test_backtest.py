"""Where a policy stands after what it did, where nothing need be trained for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.backtest import PolicyState, apply_decision
from tasks.backtest.policies import POLICIES
from tasks.backtest.results import MonthResult, MonthScore
from tasks.monitor.results import Decision
from tasks.release.results import Release

NOW = datetime(2013, 5, 1, tzinfo=UTC)
NOTHING: Any = None  # neither run nor snapshot is looked at


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


def test_a_policy_that_rolls_back_stands_where_it_stood():
    """The champion before stands again, nothing is trained, and the policy's own history tells it."""
    scored = MonthScore(release="b" * 64, rows=1, metrics={}, losses=Path())
    played = MonthResult(
        month=NOW, policy="decide", since=NOW, scored=scored, decision=None, action="rollback", challenge=None
    )
    done, standing = apply_decision(
        NOTHING, NOTHING, played, decision("rollback"), PolicyState(release("b"), release("a"))
    )
    assert (standing.champion, standing.before, done.challenge) == (release("a"), None, None)
    assert [(past.outcome, past.release) for past in standing.history] == [("released", "a" * 64)]


def test_policies_make_of_a_decision_what_their_name_says():
    """One does nothing, one always trains, one does what was decided."""
    for action in ("ignore", "alert", "recalibrate", "retrain", "rollback"):
        made = {name: policy(decision(action)) for name, policy in POLICIES.items()}
        assert made == {"never": "ignore", "monthly": "retrain", "decide": action}
