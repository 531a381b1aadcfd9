"""Write the case.yaml of a tabular case from a file and its target column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cli.new import flow
from tasks.core.errors import DataError, InputError
from tasks.data.tabular.profile import MAX_LISTED_VALUES, ColumnProfile, profile_file, quote_if_needed
from tasks.train.classes import MAX_CLASSES

HELD_OUT = 0.2  # share of the rows in the hold-out set
NAMES = re.compile(r"(^|[_ ])(id|key|uuid|number)$", re.IGNORECASE)  # usual names of key columns


@dataclass(frozen=True)
class TableProfile:
    """What the file's columns are used for."""

    rows: int
    target: ColumnProfile
    keys: Sequence[str]
    time: ColumnProfile | None
    features: Sequence[ColumnProfile]
    left_out: dict[str, str]


def write_tabular_case(
    file: Path, source: str, target: str, key: Sequence[str], time: str | None
) -> tuple[list[str], str]:
    """The lines of the file, and a summary of the columns.

    Raises: InputError, DataError.
    """
    rows, facts = profile_file(file)
    columns = {fact.name: fact for fact in facts}
    for option, named in (("--target", [target]), ("--key", key), ("--time", [time] if time else [])):
        if missing := [column for column in named if column not in columns]:
            raise InputError(f"{file.name} has no column {missing[0]}.", where=option, allowed=", ".join(columns))
    if time and (columns[time].kind != "time" or columns[time].empty):
        kind = f"{columns[time].kind}, {columns[time].empty:,} rows without"
        raise InputError(
            "The time column has no valid time in each row.", where="--time", found=kind, allowed="a date or time"
        )
    if rows * HELD_OUT < 30:
        raise DataError(
            "There are too few rows to train and evaluate a model.", where=str(file), found=f"{rows:,} rows"
        )
    if columns[target].kind in ("time", "other") or (
        columns[target].kind == "text" and columns[target].distinct > MAX_CLASSES
    ):
        raise InputError(
            f"{target} can't be a target.",
            where="--target",
            found=f"{columns[target].kind} with {columns[target].distinct:,} distinct values",
            allowed=f"numbers, or at most {MAX_CLASSES} classes",
        )
    unique = [f.name for f in facts if f.distinct == rows and not f.empty and f.name != target and _can_be_key(f)]
    keys = [*key] or [name for name in unique if name == facts[0].name or NAMES.search(name)][:1]
    left_out: dict[str, str] = {}
    features = [f for f in facts if f.name not in {target, time, *keys} and _is_feature(f, rows, left_out)]
    if not features:
        raise DataError("No usable feature column is left.", where=str(file), found=str(left_out or list(columns)))
    table = TableProfile(rows, columns[target], keys, columns.get(time or ""), features, left_out)
    lines = _lines(file, source, table)
    summary = [f"{len(features)} features of {rows:,} rows, to predict {target}"]
    return lines, "\n".join([*summary, *(f"  left out: {column}, {why}" for column, why in left_out.items())])


def _can_be_key(fact: ColumnProfile) -> bool:
    return fact.kind == "text" or fact.whole


def _is_feature(fact: ColumnProfile, rows: int, left_out: dict[str, str]) -> bool:
    if fact.kind in ("time", "other"):
        left_out[fact.name] = "neither number nor text: derive numbers in features.examples"
    elif fact.distinct < 2:
        left_out[fact.name] = "constant"
    elif fact.kind == "text" and fact.distinct > max(MAX_LISTED_VALUES, rows / 10):
        left_out[fact.name] = f"text with {fact.distinct:,} distinct values"
    return fact.name not in left_out


def _lines(file: Path, source: str, profile: TableProfile) -> list[str]:
    rows, target, keys, time = profile.rows, profile.target, profile.keys, profile.time
    features, left_out = profile.features, profile.left_out
    table = re.sub(r"\W+", "_", file.name.split(".")[0].lower()).strip("_") or "rows"
    regression = target.kind == "number" and target.distinct > MAX_LISTED_VALUES
    names = [fact.name for fact in features]
    texts = [fact.name for fact in features if fact.kind == "text"]
    lines = [f"# left out: {name}, {why}" for name, why in left_out.items()]
    lines += [
        "kind: tabular",
        f"description: {flow(f'Predicts {target.name} from {len(features)} columns of {file.name}.')}",
        f"target: {{column: {flow(target.name)}, task: {'regression' if regression else 'classification'}}}",
        "",
        "data:",
        "  sources:",
        f"    {table}:",
        f"      uri: {flow(source)}",
    ]
    if keys:
        lines += [f"      key: {flow(list(keys))}"]
    else:
        keys = ["row_id"]
        lines += [
            "      sql: SELECT row_number() OVER () AS row_id, * FROM raw  # no key column: the row number is the key",
            "      key: [row_id]",
        ]
    lines += [f"      time: {flow(time.name)}"] if time else []
    if expected := [each for fact in features for each in _expectations(fact)]:
        lines += ["      expectations:  # Great Expectations, inferred from this file; severity warning only reports"]
        lines += [f"        - {flow(each)}" for each in expected]
    identity = (
        f"{quote_if_needed(keys[0])}::VARCHAR"
        if len(keys) == 1
        else f"concat_ws('/', {', '.join(map(quote_if_needed, keys))})"
    )
    moment = f"{quote_if_needed(time.name)}::TIMESTAMPTZ" if time else f"TIMESTAMPTZ '{datetime.now(UTC):%Y-%m-%d}'"
    lines += [
        "",
        "features:",
        "  examples: |  # per row: id, time of prediction, features known by then, target",
        f"    SELECT {identity} AS example_id, {moment} AS event_timestamp,",
        *(f"           {quote_if_needed(name)}," for name in names),
        f"           {quote_if_needed(target.name)}",
        f"    FROM {quote_if_needed(table)}",
        f"  request: {flow(names)}",
        "",
        "train:",
        f"  family: sklearn.ensemble.HistGradientBoosting{'Regressor' if regression else 'Classifier'}",
    ]
    if texts:
        lines += [
            "  encoders:",
            f"    - columns: {flow(texts)}",
            "      family: sklearn.preprocessing.OrdinalEncoder",
            "      parameters: {handle_unknown: use_encoded_value, unknown_value: .nan}",
        ]
    held_out = max(30, int(rows * HELD_OUT))
    if time:
        days = max(timedelta(days=1), (time.most - time.least) * HELD_OUT).days
        lines += [f"  split: {{by: time, holdout: {days}d}}"]
    else:
        lines += [f"  split: {{by: hash, share: {HELD_OUT}}}"]
    metric, least, loss = ("r2", 0.1, "squared_error") if regression else ("auc", 0.6, "brier")
    few = max(30, min(500, held_out // 2))
    lines += [
        "",
        "evaluate:",
        f"  bounds: [{{metric: {metric}, at_least: {least}}}]  # better than chance: raise it to your requirement",
        f"  champion_gate: {{loss: {loss}, min_rows: {few}}}",
        "",
        "monitor:",
        f"  retrain: {{metric: {metric}, worse_by: 0.05, bias: {0.1 if regression else 0.05}}}",
        f"  min_rows: {few}",
    ]
    return lines


def _expectations(fact: ColumnProfile) -> list[dict[str, Any]]:
    expectations: list[dict[str, Any]] = []
    if not fact.empty:
        expectations.append({"expect": "column_values_to_not_be_null", "column": fact.name})
    if fact.kind == "text" and fact.values:
        among = {"value_set": list(fact.values), "severity": "warning"}
        expectations.append({"expect": "column_values_to_be_in_set", "column": fact.name, **among})
    if fact.kind == "number":
        range_ = {"min_value": _plain(fact.least), "max_value": _plain(fact.most), "severity": "warning"}
        expectations.append({"expect": "column_values_to_be_between", "column": fact.name, **range_})
    return expectations


def _plain(value: Any) -> int | float:
    return int(value) if value == int(value) else float(value)
