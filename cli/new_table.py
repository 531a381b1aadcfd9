"""Writes the case.yaml of a table from a plan of its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from cli.new_columns import HELD_OUT, MIN_HELD_OUT, Feature, TablePlan, decisions
from cli.new_trial import Choice
from cli.yaml_line import flow
from tasks.core.display import one_line
from tasks.core.duckdb import quote_identifier, quote_if_needed, quote_literal
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER

MAX_CHECKED = 60  # features with expectations of their own: more cost longer than training, and nobody reads them
WAIVER = {"reason": "WHY", "by": "NAME", "until": "YYYY-MM-DD"}
MAX_COMMENTS = 40  # lines of one group of decisions


@dataclass(frozen=True)
class SourceLines:
    """What a source is read by."""

    uri: str
    query: str = ""  # of a database
    columns: Mapping[str, Any] = field(default_factory=dict)
    missing: Sequence[str] = ()
    format: Mapping[str, Any] = field(default_factory=dict)
    # by column of numbers or dates: words that stand for a missing value in it, but are values elsewhere
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_tabular_case(plan: TablePlan, source: SourceLines, choice: Choice | None = None) -> list[str]:
    """The lines of the file; without a choice, with the plainest model that fits."""
    names = [feature.name for feature in plan.features]
    description = f"Predicts {plan.target.name} from {len(names)} columns of {plan.profile.name}."
    positive = f", positive: {_class(plan)}" if plan.positive is not None else ""
    return [
        *_comments(plan),
        "kind: tabular",
        f"description: {flow(one_line(description))}",
        f"target: {{column: {flow(plan.target_name)}, task: {plan.task}{positive}}}",
        "",
        "data:",
        "  sources:",
        f"    {flow(table_name(plan.profile.name))}:",
        *_source(plan, source),
        "",
        "features:",
        *_examples(plan),
        f"  request: {flow(names)}",
        "",
        *(_chosen(choice) if choice else _plainest(plan)),
        f"  split: {{by: {'time' if plan.time else 'hash'}, share: {HELD_OUT}}}",
        "",
        *_evaluate(plan),
    ]


def table_name(file: str) -> str:
    """The name of the table of a file, for YAML and SQL."""
    name = re.sub(r"\W+", "_", file.split(".")[0].lower()).strip("_") or "rows"
    return f"rows_{name}" if name[0].isdigit() or name in ("raw", "rows") else name


def _comments(plan: TablePlan) -> Iterator[str]:
    for group, lines in groupby(decisions(plan), key=lambda decision: decision[0]):
        every = [f"#   {one_line(name)}: {one_line(why)}" if name else f"#   {one_line(why)}" for _, name, why in lines]
        yield f"# {group}:"
        yield from every[:MAX_COMMENTS]
        if len(every) > MAX_COMMENTS:
            yield f"#   and {len(every) - MAX_COMMENTS:,} more: the profile has them all"


def _class(plan: TablePlan) -> str:
    value = str(plan.positive)
    if plan.target.is_number:
        return str(int({"true": 1, "false": 0}.get(value, value)))
    return flow(value)


def _source(plan: TablePlan, source: SourceLines) -> Iterator[str]:
    yield f"      uri: {flow(source.uri)}"
    if source.query:
        yield f"      query: {flow(source.query)}"
    if source.columns:
        yield "      columns:  # as in the file; a value of another type is quarantined with its row"
        yield from (f"        {flow(name)}: {flow(kind)}" for name, kind in source.columns.items())
    if source.missing:
        yield f"      missing: {flow(['', *source.missing])}  # words that stand for a missing value"
    if source.format:
        yield f"      format: {flow(dict(source.format))}"
    sql, keys = source_sql(plan, source.words)
    if sql.isprintable() and "\n" not in sql and not plan.keys:
        yield "      sql: |  # no column names a row: its features do, with a number among equal rows"
        yield f"        {sql}"
    elif sql:
        yield f"      sql: {flow(sql)}"
    yield f"      key: {flow(list(keys))}"
    if plan.time:
        yield f"      time: {flow(plan.time.name)}"
    if expected := [*_expectations(plan)]:
        yield "      expectations:  # Great Expectations, from this file; severity warning only reports"
        yield from (f"        - {flow(each)}" for each in expected)
    elif len(plan.features) > MAX_CHECKED:
        count = len(plan.features)
        yield f"      # no expectations: {count:,} features are checked by their types alone; add what matters"


def source_sql(plan: TablePlan, words: Mapping[str, Sequence[str]]) -> tuple[str, tuple[str, ...]]:
    """The source's SQL, empty if none is needed, and its key.

    Rows without a key are named by their features, since the target and what is left out may come later, and by a
    number where these are equal: sorting the file or adding rows changes no other row's name. `words`: by column of
    numbers or dates, words that stand for a missing value in it alone.
    """
    raw = "raw"
    if words:
        casts = [
            f"CASE WHEN {name} NOT IN ({', '.join(map(quote_literal, each))}) THEN {_cast(plan, column)} END AS {name}"
            for column, each in words.items()
            for name in [quote_identifier(column)]
        ]
        raw = f"(SELECT * REPLACE ({', '.join(casts)}) FROM raw)"
    if plan.keys:
        return (f"SELECT * FROM {raw}" if words else ""), plan.keys
    taken = {name.lower() for name in plan.profile.names}
    key, content = _unused("row_id", taken), _unused("row_content", taken)
    target = quote_if_needed(plan.target.name)
    features = ", ".join(quote_if_needed(feature.column.name) for feature in plan.features)
    sql = (
        f"SELECT {content} || '-' || row_number() OVER (PARTITION BY {content} ORDER BY {target}) AS {key}, "
        f"* EXCLUDE ({content}) FROM (SELECT md5(row({features})::VARCHAR) AS {content}, * FROM {raw})"
    )
    return sql, (key,)


def _cast(plan: TablePlan, column: str) -> str:
    reading, name = plan.profile.column(column).reading, quote_identifier(column)
    if reading is not None and reading.format:
        kind = "DATE" if reading.type == "date" else "TIMESTAMPTZ"
        return f"strptime({name}, {quote_literal(reading.format)})::{kind}"
    return f"{name}::{'BIGINT' if reading is not None and reading.type == 'integer' else 'DOUBLE'}"


def _unused(name: str, taken: set[str]) -> str:
    return next(each for each in (name, *(f"{name}_{i}" for i in range(2, 10_000))) if each not in taken)


def _examples(plan: TablePlan) -> Iterator[str]:
    _, keys = source_sql(plan, {})
    key = [quote_if_needed(name) for name in keys]
    identity = f"{key[0]}::VARCHAR" if len(key) == 1 else f"concat_ws('/', {', '.join(key)})"
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    moment = f"{quote_if_needed(plan.time.name)}::TIMESTAMPTZ" if plan.time else f"TIMESTAMPTZ '{day}'"
    lines = [
        f"SELECT {identity} AS example_id, {moment} AS event_timestamp,",
        *(f"       {_select(feature)}," for feature in plan.features),
        f"       {_alias(quote_if_needed(plan.target.name), quote_if_needed(plan.target_name))}",
        f"FROM {quote_if_needed(table_name(plan.profile.name))}",
    ]
    if plan.rare_classes:
        column = quote_if_needed(plan.target.name)
        rare = ", ".join(quote_literal(value) for value in plan.rare_classes)
        lines.append(f"WHERE {column} IS NULL OR {column}::VARCHAR NOT IN ({rare})")
    sql = "\n".join(lines)
    if sql.isprintable() or (sql.replace("\n", "").isprintable() and sql.count("\n") == len(lines) - 1):
        yield "  examples: |  # per row: id, time of prediction, features known by then, target"
        yield from (f"    {line}" for line in lines)
    else:  # a column's name holds a line break
        yield f"  examples: {flow(sql)}"


def _select(feature: Feature) -> str:
    column, name = quote_if_needed(feature.column.name), quote_if_needed(feature.name)
    value = f"{column}::VARCHAR" if feature.kind == "date" else column
    return _alias(value, name)


def _alias(value: str, name: str) -> str:
    return value if value == name else f"{value} AS {name}"


def _chosen(choice: Choice) -> Iterator[str]:
    yield "train:"
    yield from (f"  # {one_line(reason)}" for reason in choice.reasons)
    for key, value in choice.train.items():
        if key == "encoders" and value:
            yield "  encoders:"
            yield from (f"    - {flow(encoder)}" for encoder in value)
        elif value or key == "seed":
            yield f"  {key}: {flow(value)}"


def _plainest(plan: TablePlan) -> Iterator[str]:
    texts = [feature.name for feature in plan.features if feature.kind in ("category", "text", "date")]
    yield "train:"
    yield f"  family: sklearn.ensemble.HistGradientBoosting{'Regressor' if plan.task == 'regression' else 'Classifier'}"
    if texts:
        yield "  encoders:"
        yield f"    - columns: {flow(texts)}"
        yield "      family: sklearn.preprocessing.OrdinalEncoder"
        yield "      parameters: {handle_unknown: use_encoded_value, unknown_value: .nan}"


def _evaluate(plan: TablePlan) -> Iterator[str]:
    few = max(30, min(500, max(MIN_HELD_OUT, int(plan.known * HELD_OUT)) // 2))
    loss = "squared_error" if plan.task == "regression" else "brier"
    better = plan.metric in HIGHER_IS_BETTER
    chance, scale = _chance(plan)
    required = chance + 0.2 * (1 - chance) if better else 0.9 * chance
    if plan.metric == "r2":
        required = 0.1
    side = "at_least" if better else "at_most"
    worse_by = 0.05 if better or scale == 1 else float(f"{0.1 * chance:.2g}")
    bias = 0.1 if plan.task == "regression" else 0.05
    yield "evaluate:"
    if plan.suspected:
        yield "  # a leak is not promoted; if such a column is known before the target is, say why:"
        yield f"  # waive: {flow(dict.fromkeys(plan.suspected, WAIVER))}"
    yield "  # better than chance: raise it to your requirement"
    yield f"  bounds: [{{metric: {plan.metric}, {side}: {required:.4g}}}]"
    yield f"  champion_gate: {{loss: {loss}, min_rows: {few}}}"
    yield ""
    yield "monitor:"
    yield f"  retrain: {{metric: {plan.metric}, worse_by: {worse_by}, bias: {bias}}}"
    yield f"  min_rows: {few}"


def _chance(plan: TablePlan) -> tuple[float, float]:
    """What the metric is for the mean or the classes' shares alone, and its scale."""
    shares = [n / plan.known for v, n in plan.target.counts.items() if v not in plan.rare_classes and plan.known]
    largest, squares = max(shares, default=0.5), sum(share**2 for share in shares)
    brier = 1 - squares if len(shares) > 2 else (1 - squares) / 2
    spread = plan.target.deviation or 1.0
    chances = {
        "auc": 0.5,
        "average_precision": min(shares, default=0.5),
        "brier": brier,
        "log_loss": _entropy(shares),
        "calibration_error": 0.1 / 0.9,
        "accuracy": largest,
        "macro_f1": 1 / max(len(shares), 2),
        "mae": 0.8 * spread,  # of a normal distribution
        "rmse": spread,
    }
    return chances.get(plan.metric, 0.0), spread if plan.metric in ("mae", "rmse") else 1.0


def _entropy(shares: Sequence[float]) -> float:
    import math

    return -sum(share * math.log(share) for share in shares if share)


def _expectations(plan: TablePlan) -> Iterator[dict[str, Any]]:
    if len(plan.features) > MAX_CHECKED:
        return
    for feature in plan.features:
        column = feature.column
        if not column.empty:
            yield {"expect": "column_values_to_not_be_null", "column": column.name}
        if feature.kind == "category" and column.counts:
            values = {"value_set": sorted(column.counts), "severity": "warning"}
            yield {"expect": "column_values_to_be_in_set", "column": column.name, **values}
        if feature.kind == "number" and column.type != "boolean":
            bounds = {"min_value": _plain(column.least), "max_value": _plain(column.most), "severity": "warning"}
            yield {"expect": "column_values_to_be_between", "column": column.name, **bounds}


def _plain(value: Any) -> int | float:
    return int(value) if value == int(value) else float(value)
