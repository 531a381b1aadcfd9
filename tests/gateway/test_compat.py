"""Contract: the private parts of uvicorn and MLflow that services/gateway/compat.py uses are there."""

from __future__ import annotations

import inspect

import pytest
from mlflow.entities import Span
from mlflow.tracing.client import TracingClient
from uvicorn.protocols.http import httptools_impl
from uvicorn.supervisors import multiprocess

from services.gateway import compat

METHODS = [
    "_unset_keepalive_if_required",
    "on_body",
    "on_header",
    "on_headers_complete",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "on_url",
    "pause_writing",
    "resume_writing",
    "shutdown",
    "timeout_keep_alive_handler",
]
ATTRIBUTES = [
    "client",
    "cycle",
    "headers",
    "loop",
    "parser",
    "pipeline",
    "scope",
    "server",
    "timeout_keep_alive",
    "timeout_keep_alive_task",
    "transport",
    "url",
]
CHANGED = "uvicorn has changed its private {}: see services/gateway/compat.py"


@pytest.mark.parametrize("name", METHODS)
def test_uvicorns_protocol_has_its_callbacks(name: str):
    assert callable(getattr(httptools_impl.HttpToolsProtocol, name, None)), CHANGED.format(name)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_uvicorns_protocol_has_its_attributes(name: str):
    source = inspect.getsource(httptools_impl.HttpToolsProtocol)
    assert f"self.{name}" in source, CHANGED.format(name)


def test_uvicorn_starts_requests_through_one_method():
    start = getattr(httptools_impl.HttpToolsProtocol, "_start_asgi_task", None)
    assert start is not None, CHANGED.format("_start_asgi_task")
    assert [*inspect.signature(start).parameters] == ["self", "cycle", "app"], CHANGED.format("_start_asgi_task")
    fields = inspect.getsource(httptools_impl.RequestResponseCycle)
    for name in ("disconnected", "response_complete", "message_event", "keep_alive"):
        assert f"self.{name}" in fields, CHANGED.format(f"RequestResponseCycle.{name}")


def test_uvicorn_has_status_lines():
    assert compat.status_line(503).startswith(b"HTTP/1.1 503 "), CHANGED.format("STATUS_LINE")


def test_uvicorn_creates_workers_by_a_replaceable_name():
    source = inspect.getsource(multiprocess.Multiprocess)
    assert " Process(" in source, CHANGED.format("Multiprocess")
    assert "self.child_conn" in inspect.getsource(multiprocess.Process), CHANGED.format("Process.child_conn")


def test_mlflow_writes_whole_traces():
    message = "MLflow has changed its TracingClient: see services/gateway/compat.py"
    for name, parameters in (("log_spans", ["self", "location", "spans"]), ("start_trace", ["self", "trace_info"])):
        assert [*inspect.signature(getattr(TracingClient, name)).parameters] == parameters, message
    assert callable(Span.from_dict), message
