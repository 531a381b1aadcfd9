"""Whether a query may run on several threads and still give the same, to the last digit, each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

# What works row by row, or on sets whose order does not matter. Not here: windows, DISTINCT ON, LIMIT, ASOF joins.
STEPS = {
    "GET", "PROJECTION", "FILTER", "AGGREGATE_AND_GROUP_BY", "UNNEST", "MATERIALIZED_CTE", "CTE_REF", "COMPARISON_JOIN",
    "ANY_JOIN", "CROSS_PRODUCT", "UNION", "EXCEPT", "INTERSECT", "ORDER_BY", "DUMMY_SCAN", "EXPRESSION_GET",
}  # fmt: skip
ANY_ORDER = {"count", "count_star", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"}
EXACT = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN"}


def is_order_independent(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Judge by DuckDB's own plan, whose tables must be in memory; what is not known to be safe is not.

    Threads take rows as they come, and floats summed in another order differ in the last digit.
    """
    told = connection.execute("SELECT json_serialize_plan(?::VARCHAR)", [sql]).fetchall()[0][0]
    plan = json.loads(told)
    return not plan.get("error", True) and _safe(plan)


def _safe(node: Any) -> bool:
    if isinstance(node, list):
        return all(map(_safe, node))
    if not isinstance(node, dict):
        return True
    step = str(node.get("type", ""))
    if step.startswith("LOGICAL_") and step.removeprefix("LOGICAL_") not in STEPS:
        return False
    if node.get("expression_class") == "BOUND_AGGREGATE" and not _safe_aggregate(node):
        return False
    return all(map(_safe, node.values()))


def _safe_aggregate(node: dict[str, Any]) -> bool:
    function = node["qname"]["path"][-1]
    summed = all(child["return_type"]["id"] in EXACT for child in node["children"])
    return function in ANY_ORDER or (function in ("sum", "avg") and summed)
