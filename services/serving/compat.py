"""BentoML's internals that serving depends on; tests/serving/test_compat.py checks each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bentoml import IODescriptor
    from pydantic import BaseModel
    from starlette.requests import Request as HttpRequest

# What BentoML, uvicorn and scikit-learn import when they serve a Bento. A fork server imports it once for all releases.
PRELOADED = (
    "_bentoml_impl.loader",
    "_bentoml_impl.server.app",
    "bentoml._internal.server.http.instruments",
    "bentoml._internal.server.http.traffic",
    "bentoml._internal.service.loader",
    "httpx",
    "opentelemetry.instrumentation.asgi",
    "opentelemetry.sdk.trace",
    "sklearn.ensemble",
    "treelite",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)


def raw_request_type(model: type[BaseModel]) -> type[IODescriptor]:
    """The input type of a route with a field `rows`, whose value is the unread body of the request.

    The route validates the body itself: for an invalid one BentoML would log a traceback with the client's values.
    """
    import bentoml

    class Request(bentoml.IODescriptor, model):  # type: ignore[misc, valid-type]  # a type made from a manifest
        @classmethod
        async def from_http_request(cls, request: HttpRequest, serde: Any) -> Any:
            return cls.model_construct(rows=await request.body())

    return Request


def response_type(model: type[BaseModel]) -> type[IODescriptor]:
    """The output type of a route."""
    import bentoml

    class Answer(bentoml.IODescriptor, model):  # type: ignore[misc, valid-type]  # a type made from a manifest
        pass

    return Answer


def metrics_folder() -> str:
    """The folder of this process's Prometheus metrics; BentoML makes it in its home, and does not document it."""
    from bentoml.serving import ensure_prometheus_dir

    return ensure_prometheus_dir()
