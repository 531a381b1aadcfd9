"""Writes a sample of the calls as MLflow traces, from the request log, so that no call waits for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.gateway.compat import tracing_client
from services.gateway.request_log import reading_log
from services.store.database import CACHED, DONE, REFUSED
from tasks.core.mlflow import get_or_create_experiment, mlflow_client, mlflow_errors
from tasks.core.settings import Settings
from tasks.data.language.source_tables import read_rows

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

MAX_TRACES = 100  # in one run; SQLite takes 40 to 70 ms for each
REQUEST = "driftline.request"  # tag with the request id
PREVIEW_LENGTH = 1000  # characters of a request or a response in the list of traces
# request ids are random, so those below a bound are a stable sample
SAMPLE = f"""
SELECT DISTINCT ON (id) * FROM logged
WHERE "case" = $1 AND state <> '{REFUSED}' AND logged.at + seconds <= $2 AND right(id, 8) <= $3
ORDER BY logged.at DESC LIMIT {MAX_TRACES}
"""


def write_traces(case: str, as_of: datetime, settings: Settings) -> int:
    """Write the newest sampled calls without a trace into the case's experiment; return their number.

    A trace has the call's times, tokens, price and logged texts. Raises: Unavailable.
    """
    folder = settings.state / "gateway" / "requests"
    if not settings.gateway_traces or not folder.is_dir():
        return 0
    bound = f"{round(settings.gateway_traces * (2**32 - 1)):08x}"
    with reading_log(folder) as db:
        rows = read_rows(db, SAMPLE, [case, as_of.timestamp(), bound])
    if not rows:
        return 0
    with mlflow_errors(settings.mlflow_uri):
        client = mlflow_client(settings.tracking)
        place, tracing = get_or_create_experiment(client, settings.tracking, case), tracing_client(settings.mlflow_uri)
        since = min(row["at"] for row in rows)
        after = f"trace.timestamp_ms >= {int(since * 1000)}"
        written = client.search_traces(locations=[place], filter_string=after, max_results=500, include_spans=False)
        known = {each.info.tags.get(REQUEST) for each in written}
        new = [row for row in rows if row["id"] not in known]
        for row in new:
            tracing.log_spans(place, [_span(row)])
            tracing.start_trace(_info(row, place))  # last: it marks the trace as complete
    return len(new)


def _id(row: Mapping[str, Any]) -> str:
    """The trace's id, 32 hexadecimal digits: a repeated run writes the same trace."""
    request_id: str = row["id"]
    return request_id.removeprefix("req-").rjust(32, "0")


def _info(row: Mapping[str, Any], place: str) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    tags = ("release", row["digest"]), ("role", row["role"]), ("state", row["state"]), ("team", row["team"])
    return TraceInfo(
        trace_id=f"tr-{_id(row)}",
        trace_location=TraceLocation.from_experiment_id(place),
        request_time=int(row["at"] * 1000),
        execution_duration=int(row["seconds"] * 1000),
        state=TraceState.OK if row["state"] in (DONE, CACHED) else TraceState.ERROR,
        request_preview=row["request"][:PREVIEW_LENGTH],
        response_preview=row["response"][:PREVIEW_LENGTH],
        client_request_id=row["id"],
        tags={
            "mlflow.traceName": row["interface"],
            REQUEST: row["id"],
            **{f"driftline.{name}": value for name, value in tags},
        },
    )


def _span(row: Mapping[str, Any]) -> Span:
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    id_, start = _id(row), int(row["at"] * 1e9)
    answered = row["state"] in (DONE, CACHED)
    tokens = {"input_tokens": row["tokens_in"], "output_tokens": row["tokens_out"]}
    language = row["interface"] != "predict"
    kind = {"predict": SpanType.TOOL, "search": SpanType.RETRIEVER}.get(row["interface"], SpanType.CHAT_MODEL)
    values = {
        SpanAttributeKey.REQUEST_ID: f"tr-{id_}",
        SpanAttributeKey.SPAN_TYPE: kind,
        SpanAttributeKey.INPUTS: _read(row["request"]),
        SpanAttributeKey.OUTPUTS: _read(row["response"]),
        SpanAttributeKey.MODEL: f"{row['case']}:{row['digest'][:12]}",
        SpanAttributeKey.LLM_COST: {"input_cost": 0.0, "output_cost": 0.0, "total_cost": row["price"] / 1e9},
        **({SpanAttributeKey.CHAT_USAGE: {**tokens, "total_tokens": sum(tokens.values())}} if language else {}),
        **{f"driftline.{name}": row[name] for name in ("status", "retries", "tokens_cached", "engine_seconds")},
        **({"driftline.retrieval": _read(row["retrieval"])} if row["retrieval"] else {}),
        **({"driftline.guardrails": _read(row["guard"])} if row["guard"] else {}),
    }
    return Span.from_dict(
        {
            "name": row["interface"],
            "trace_id": _base64(id_),
            "span_id": _base64(id_[-16:]),
            "parent_span_id": "",
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + int(row["seconds"] * 1e9),
            "status": {"code": "OK", "message": ""} if answered else {"code": "ERROR", "message": row["state"]},
            "attributes": {name: json.dumps(value) for name, value in values.items()},
            "events": [],
        }
    )


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def _read(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value)
    except (ValueError, RecursionError):  # not JSON, or nested too deep for a trace
        return text
    return value
