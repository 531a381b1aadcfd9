"""Promise: BentoML's internals that serving needs are there; a failure names what a new version changed."""

from __future__ import annotations

import asyncio
import importlib.util
from importlib.metadata import version
from typing import Any

import bentoml
import bentoml.serving
import pytest
from pydantic import BaseModel
from starlette.requests import Request

from services.serving.compat import PRELOADED, raw_request_type, response_type

VERSION = f"bentoml {version('bentoml')}"


class Body(BaseModel):
    rows: list[int]


@pytest.mark.parametrize("module", PRELOADED)
def test_a_preloaded_module_exists(module: str) -> None:
    assert importlib.util.find_spec(module), f"{VERSION}, or a package that it uses, has no module {module}."


def test_a_route_gets_the_unread_body() -> None:
    """BentoML calls the method that we override, and passes what it returns by the names of the fields."""
    assert hasattr(bentoml.IODescriptor, "from_http_request"), f"{VERSION} lacks IODescriptor.from_http_request."

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"not json"}

    descriptor: Any = raw_request_type(Body)
    value = asyncio.run(descriptor.from_http_request(Request({"type": "http", "headers": []}, receive), None))
    assert {name: getattr(value, name) for name in type(value).model_fields} == {"rows": b"not json"}


def test_types_keep_their_schema() -> None:
    assert issubclass(response_type(Body), Body)
    assert set(raw_request_type(Body).model_json_schema()["properties"]) == {"rows"}


def test_a_process_has_a_folder_for_its_metrics() -> None:
    assert hasattr(bentoml.serving, "ensure_prometheus_dir"), f"{VERSION} lacks serving.ensure_prometheus_dir."
