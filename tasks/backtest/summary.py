"""The figures of a backtest, as in its JSON: by policy, and by month."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.backtest.policies import BASELINE
from tasks.backtest.results import MonthResult
from tasks.backtest.score import CONFIDENCE, LOSS, SHOWN, Task, gain

OUTCOMES = {"promote": "promoted", "reject": "rejected"}  # of verdicts; the third stands for itself


@dataclass(frozen=True)
class Backtest:
    """What a backtest was run on, and the price of a machine hour."""

    case: str
    profile: str | None
    task: Task
    machine_hour: float
    lineage: Mapping[str, str]


def summarise_backtest(backtest: Backtest, results: Sequence[MonthResult]) -> dict[str, Any]:
    """Means are over months, with equal weights; gains are over examples."""
    task, machine_hour, lineage = backtest.task, backtest.machine_hour, backtest.lineage
    by_policy: dict[str, list[MonthResult]] = {}
    for done in results:
        by_policy.setdefault(done.policy, []).append(done)
    months = list(dict.fromkeys(f"{done.month:%Y-%m}" for done in results))
    baseline = by_policy.get(BASELINE)
    return {
        "case": backtest.case,
        "profile": backtest.profile,
        "from": months[0],
        "to": months[-1],
        "metrics": list(SHOWN[task]),
        "loss": LOSS[task],
        "confidence": CONFIDENCE,
        "machine_hour": machine_hour,
        "commit": lineage["commit"],
        "dirty": lineage["dirty"] == "true",
        "policies": {
            policy: _policy(all_of_it, baseline, task, machine_hour) for policy, all_of_it in by_policy.items()
        },
        "months": {
            month: {
                name: _month(all_of_it[i], baseline[i] if baseline else None, task)
                for name, all_of_it in by_policy.items()
            }
            for i, month in enumerate(months)
        },
    }


def _policy(
    played: Sequence[MonthResult], baseline: Sequence[MonthResult] | None, task: Task, machine_hour: float
) -> dict[str, Any]:
    challenges = [done.challenge for done in played if done.challenge]
    promotions = sum(challenge.verdict == "promote" for challenge in challenges)
    times = Counter(done.action for done in played)
    means = {name: _mean(played, name) for name in SHOWN[task]}
    seconds = sum(challenge.seconds for challenge in challenges)
    figures: dict[str, Any] = {
        **{f"{name}_mean": mean for name, mean in means.items()},
        "retrains": times["retrain"],
        "recalibrations": times["recalibrate"],
        "rollbacks": times["rollback"],
        "promotions": promotions,
        "rejections": len(challenges) - promotions,
        "seconds": round(seconds, 3),
        "cost": round(seconds * machine_hour / 3600, 9),
        "gain": None,
    }
    if baseline:
        figures["gain"] = gain([d.scored.losses for d in played], [d.scored.losses for d in baseline])
        for name, mean in means.items():
            other = _mean(baseline, name)
            figures[f"{name}_difference"] = None if mean is None or other is None else mean - other
    return figures


def _mean(played: Sequence[MonthResult], name: str) -> float | None:
    """None when a month has no such number."""
    values = [done.scored.metrics.get(name) for done in played]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _month(done: MonthResult, baseline: MonthResult | None, task: Task) -> dict[str, Any]:
    decision, challenge = done.decision, done.challenge
    return {
        **{name: done.scored.metrics.get(name) for name in SHOWN[task]},
        "rows": done.scored.rows,
        "release": done.scored.release,
        "released": f"{done.since:%Y-%m-%d}",
        "gain": gain([done.scored.losses], [baseline.scored.losses]) if baseline else None,
        "decision": decision
        and {"action": decision.action, "reasons": list(decision.reasons), "evidence": decision.evidence},
        "action": done.action,
        "outcome": _outcome(done),
        "failed": list(challenge.failed) if challenge else [],
        "seconds": challenge.seconds if challenge else 0.0,
    }


def _outcome(done: MonthResult) -> str:
    if done.challenge:
        return OUTCOMES.get(done.challenge.verdict, done.challenge.verdict)
    return "rolled back" if done.action == "rollback" else "kept"
