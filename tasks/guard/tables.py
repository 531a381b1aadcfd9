"""Rows of a table outside the training data: numbers beyond its ranges, and combinations that it does not have."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import canonical_json
from tasks.core.errors import CaseError
from tasks.guard.config import REFUSAL, CombinationRule, RangeRule, TableRule
from tasks.guard.results import GuardResult, Outcome

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = "tables.json"  # in the folder of a release's guardrails
MAX_COMBINATIONS = 50_000


@dataclass(frozen=True)
class TrainingData:
    """What the rules compare rows with: ranges by column, and combinations by the label of their rule."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    combinations: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | None) -> TrainingData:
        path = folder / TABLES if folder else None
        if path is None or not path.is_file():
            return cls()
        values = json.loads(path.read_bytes())
        ranges = {name: (low, high) for name, (low, high) in values["ranges"].items()}
        return cls(ranges, {name: frozenset(each) for name, each in values["combinations"].items()})


def describe(table: pa.Table, rules: Sequence[TableRule]) -> str:
    """What the rules need of the training data, as JSON.

    Raises: CaseError for a column that it lacks, and for more combinations than a request can be compared with.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ranges: dict[str, tuple[float, float]] = {}
    combinations: dict[str, list[str]] = {}
    for rule in rules:
        if lacking := [name for name in rule.columns if name not in table.column_names]:
            raise CaseError(
                f"The guardrail {rule.label} names a column that the model does not have.",
                found=", ".join(lacking),
                allowed=", ".join(table.column_names),
            )
        if isinstance(rule, CombinationRule):
            rows = table.select(rule.columns).group_by(list(rule.columns)).aggregate([]).to_pylist()
            if len(rows) > MAX_COMBINATIONS:
                found = f"{len(rows):,} combinations"
                raise CaseError(
                    f"The guardrail {rule.label} has too many.", found=found, allowed=f"{MAX_COMBINATIONS:,}"
                )
            combinations[rule.label] = sorted(_key(row, rule.columns) for row in rows)
            continue
        for name in rule.columns or table.column_names:
            if pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type):
                values = table[name].filter(pc.is_finite(table[name]))
                if len(values):
                    low, high = pc.min_max(values).as_py().values()
                    ranges[name] = float(low), float(high)
    return json.dumps({"ranges": ranges, "combinations": combinations}, indent=1, ensure_ascii=False)


def check_rows(rows: Any, rules: Sequence[TableRule], known: TrainingData) -> GuardResult:
    """Apply rules to the rows of a request; columns that a row leaves out are not compared."""
    result = GuardResult("allow", "")
    outcomes = []
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    for rule in rules:
        started = time.perf_counter()
        notes = [note for row in listed if (note := _outside(row, rule, known))]
        note = f"{len(notes):,} of {len(listed):,} rows; first: {notes[0]}" if notes else ""
        ms = (time.perf_counter() - started) * 1000
        outcome = Outcome(rule.label, "tables", rule.action, rule.mode, fired=bool(notes), note=note, ms=ms)
        outcomes.append(outcome)
        if outcome.is_enforced and result.action != "refuse":
            message = f"{rule.message or REFUSAL} {note}" if rule.action == "refuse" else ""
            result = GuardResult(rule.action, "", message=message)
    return GuardResult(result.action, "", tuple(outcomes), message=result.message)


def _outside(row: Mapping[str, Any], rule: TableRule, known: TrainingData) -> str:
    """How a row differs from the training data; empty: it does not."""
    if isinstance(rule, RangeRule):
        for name in rule.columns or known.ranges:
            value, bounds = row.get(name), known.ranges.get(name)
            if bounds is None or not isinstance(value, int | float) or value != value:
                continue
            margin = rule.margin * (bounds[1] - bounds[0])
            if not bounds[0] - margin <= value <= bounds[1] + margin:
                return f"{name} {value:g}, training has {bounds[0]:g} to {bounds[1]:g}"
        return ""
    if any(name not in row for name in rule.columns) or _key(row, rule.columns) in known.combinations.get(
        rule.label, ()
    ):
        return ""
    return "training has no such combination of " + ", ".join(rule.columns)


def _key(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A combination as text; 1 and 1.0 are equal."""
    values = [row[name] for name in columns]
    return canonical_json(
        [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for v in values]
    )
