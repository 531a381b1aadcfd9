"""What guardrails did over time, from the usage records, and what people said of refusals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import func, select

from services.store.database import DAY, Store, now, usage_records
from services.store.feedback import acceptance
from services.store.training import TRAINING
from tasks.statistics.confidence_sequence import BinomialSequence

ALPHA = 0.05
UNCHECKED = "error"  # the outcome of a rule that failed


@dataclass(frozen=True)
class RuleDay:
    """The calls of one day in which a rule had an outcome, of all calls; the interval is that of their share."""

    day: date
    stage: str
    rule: str
    outcome: str
    calls: int
    of: int
    low: float
    high: float
    judged: int = 0  # refusals by this rule that a person judged
    wrong: int = 0  # of these, those that the person did not accept


def guardrail_days(store: Store, case: str, days: int) -> list[RuleDay]:
    """Outcomes by day and rule over the last days, newest day first."""
    start = int(now() // DAY) - days + 1
    where = usage_records.c.case == case, usage_records.c.day >= start, usage_records.c.interface != TRAINING
    records = usage_records.c
    with store.reading() as connection:
        by_day = connection.execute(select(records.day, func.count()).where(*where).group_by(records.day))
        totals = {row[0]: row[1] for row in by_day}
        rows = connection.execute(
            select(records.id, records.day, records.guard).where(*where, records.guard.is_not(None))
        ).all()
        accepted = {id_: ok for (id_, _), ok in acceptance(connection, *where, records.guard.is_not(None)).items()}
    counts: Counter[tuple[int, str, str, str]] = Counter()
    judged: dict[tuple[int, str, str, str], list[bool]] = defaultdict(list)
    for id_, day, guard in rows:
        for key in _keys(day, guard):
            counts[key] += 1
            if id_ in accepted and guard.get("refused_by") == f"{key[1]}/{key[2]}" and key[3] != "shadow":
                judged[key].append(accepted[id_])
    report = []
    for key, calls in sorted(counts.items(), key=lambda each: (-each[0][0], each[0][1:])):
        day, stage, rule, outcome = key
        low, high = BinomialSequence(calls, totals[day]).interval(ALPHA)
        opinions = judged[key]
        report.append(
            RuleDay(
                day=date(1970, 1, 1) + timedelta(days=day),
                stage=stage,
                rule=rule,
                outcome=outcome,
                calls=calls,
                of=totals[day],
                low=low,
                high=high,
                judged=len(opinions),
                wrong=opinions.count(False),
            )
        )
    return report


def guardrail_alerts(rows: Sequence[RuleDay]) -> list[tuple[str, str]]:
    """Cause and sentence of what a person should look at: unchecked texts, and rules that find certainly more."""
    alerts = []
    by_rule: dict[tuple[str, str, str], list[RuleDay]] = defaultdict(list)
    for row in rows:
        by_rule[row.stage, row.rule, row.outcome].append(row)
    for (stage, rule, outcome), days in by_rule.items():
        newest, before = days[0], days[1:]
        name = f"{stage}/{rule}"
        if outcome == UNCHECKED:
            alerts.append((f"guardrail {name} fails", f"{name} failed in {newest.calls:,} of {newest.of:,} calls"))
        elif before:
            earlier = BinomialSequence(sum(each.calls for each in before), sum(each.of for each in before))
            _, most = earlier.interval(ALPHA)
            if newest.low > most:
                share = f"{newest.calls:,} of {newest.of:,} calls, before {earlier.hits:,} of {earlier.of:,}"
                alerts.append((f"guardrail {name} {outcome}", f"{name}, {outcome}: {share}"))
    return alerts


def _keys(day: int, guard: Any) -> set[tuple[int, str, str, str]]:
    outcomes = guard.get("outcomes", ()) if isinstance(guard, Mapping) else ()
    return {(day, each["stage"], each["rule"], each["outcome"]) for each in outcomes}
