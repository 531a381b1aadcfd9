"""What a replay found, as it stands in its JSON: policies as a whole, and months one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.replay.policies import BASELINE
from tasks.replay.results import Played
from tasks.replay.score import CONFIDENCE, LOSS, SHOWN, Task, gain

OUTCOMES = {"promote": "promoted", "reject": "rejected"}


def figures_of(
    case: str,
    profile: str | None,
    task: Task,
    machine_hour: float,
    played: Sequence[Played],
    lineage: Mapping[str, str],
) -> dict[str, Any]:
    """Means are over months, each weighing the same; gains are over examples."""
    by_policy: dict[str, list[Played]] = {}
    for done in played:
        by_policy.setdefault(done.policy, []).append(done)
    months = list(dict.fromkeys(f"{done.month:%Y-%m}" for done in played))
    baseline = by_policy.get(BASELINE)
    return {
        "case": case,
        "profile": profile,
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
    played: Sequence[Played], baseline: Sequence[Played] | None, task: Task, machine_hour: float
) -> dict[str, Any]:
    attempts = [done.attempt for done in played if done.attempt]
    promotions = sum(attempt.verdict == "promote" for attempt in attempts)
    means = {name: _mean(played, name) for name in SHOWN[task]}
    seconds = sum(attempt.seconds for attempt in attempts)
    found: dict[str, Any] = {
        **{f"{name}_mean": mean for name, mean in means.items()},
        "retrains": len(attempts),
        "promotions": promotions,
        "rejections": len(attempts) - promotions,
        "seconds": round(seconds, 3),
        "cost": round(seconds * machine_hour / 3600, 9),
        "gain": None,
    }
    if baseline:
        found["gain"] = gain([d.scored.losses for d in played], [d.scored.losses for d in baseline])
        for name, mean in means.items():
            other = _mean(baseline, name)
            found[f"{name}_difference"] = None if mean is None or other is None else mean - other
    return found


def _mean(played: Sequence[Played], name: str) -> float | None:
    """None when a month has no such number."""
    values = [done.scored.metrics.get(name) for done in played]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _month(done: Played, baseline: Played | None, task: Task) -> dict[str, Any]:
    decision, attempt = done.decision, done.attempt
    return {
        **{name: done.scored.metrics.get(name) for name in SHOWN[task]},
        "rows": done.scored.rows,
        "release": done.scored.release,
        "released": f"{done.since:%Y-%m-%d}",
        "gain": gain([done.scored.losses], [baseline.scored.losses]) if baseline else None,
        "decision": decision
        and {"action": decision.action, "reasons": list(decision.reasons), "evidence": decision.evidence},
        "outcome": OUTCOMES.get(attempt.verdict, attempt.verdict) if attempt else "kept",
        "failed": list(attempt.failed) if attempt else [],
        "seconds": attempt.seconds if attempt else 0.0,
    }
