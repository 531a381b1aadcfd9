"""Adds a column to what a case's SQL selects: the number of the file's row that each of its rows comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError

if TYPE_CHECKING:
    import duckdb


def with_row_number(db: duckdb.DuckDBPyConnection, sql: str, table: str, column: str, where: str) -> str:
    """The query `sql`, whose rows each come from one row of `table`, with `column` of that row.

    Raises: CaseError for a query that groups or joins rows so that they can't be told apart.
    """
    parsed = json.loads(_call(db, "json_serialize_sql", sql))
    if parsed["error"] or not _select(parsed["statements"][0]["node"], {table.lower()}, column):
        raise CaseError(
            "The SQL of the case does not read a file row by row.",
            where=where,
            found=parsed.get("error_message") or " ".join(sql.split())[:200],
            allowed=f"SELECT ... FROM {table}, without GROUP BY, UNION or a query of other tables alone",
            todo="Score the rows as a request (driftline up), or deliver them as the source and run driftline predict.",
        )
    return _call(db, "json_deserialize_sql", json.dumps(parsed))


def tables_of(db: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The names of the tables that a query reads, in lower case; those that it defines itself are left out."""
    parsed = json.loads(_call(db, "json_serialize_sql", sql))
    parts = list(_objects(parsed))
    own = {entry["key"].lower() for part in parts for entry in part.get("cte_map", {}).get("map", ())}
    return {_name(part) for part in parts if part.get("type") == "BASE_TABLE"} - own


def _call(db: duckdb.DuckDBPyConnection, function: str, text: str) -> str:
    kind = "JSON" if function == "json_deserialize_sql" else "VARCHAR"
    return str(db.execute(f"SELECT {function}($1::VARCHAR::{kind})", [text]).fetchall()[0][0])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)


def _name(table: dict[str, Any]) -> str:
    return str(table["table_name"]).lower()


def _select(node: dict[str, Any], carriers: set[str], column: str) -> bool:
    """Add the column to a SELECT and to those it reads from; False where it can't be."""
    if node["type"] != "SELECT_NODE" or node["group_expressions"]:
        return False
    own = set(carriers)
    for entry in node["cte_map"]["map"]:
        if _select(entry["value"]["query_node"], own, column):
            own.add(entry["key"].lower())
    if not _from(node["from_table"], own, column):
        return False
    if not any(each["type"] == "STAR" and not each["relation_name"] for each in node["select_list"]):
        node["select_list"].append({"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": [column]})
    return True


def _from(table: dict[str, Any], carriers: set[str], column: str) -> bool:
    match table["type"]:
        case "BASE_TABLE":
            return _name(table) in carriers
        case "SUBQUERY":
            return _select(table["subquery"]["node"], carriers, column)
        case "JOIN":
            return _from(table["left"], carriers, column) or _from(table["right"], carriers, column)
    return False
