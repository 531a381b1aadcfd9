"""The service in a tabular release's Bento: it loads the model, and predicts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from services.serving.compat import raw_request_type, response_type
from services.serving.schema import ReleaseAnswer
from services.serving.tabular_release import TabularRelease, json_response
from tasks.guard.sealed_files import GUARD_PATH, encode_guard

if TYPE_CHECKING:
    from bentoml import Service
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

PREDICT = "/predict"


class TabularService:
    """The process of a tabular release."""

    loaded: ClassVar[TabularRelease]

    def __init__(self) -> None:
        self.loaded.open()

    async def predict(self, rows: bytes) -> Any:
        """Predict rows. Features of a view that are left out are looked up in the online store."""
        return await self.loaded.respond(rows)

    async def release(self) -> Any:
        """Tell which release answers here; GET works too."""
        return self.loaded.info


class PredictRoute:
    """ASGI middleware that answers the calls of `predict` itself.

    BentoML's own way to an API's function costs more than a prediction. Its documentation, metrics and timeout of the
    route stay.
    """

    def __init__(self, app: ASGIApp, release: TabularRelease) -> None:
        self._app, self._release = app, release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == GUARD_PATH:
            return await json_response(encode_guard(self._release.folder))(scope, receive, send)
        if scope["type"] != "http" or scope["path"] != PREDICT or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        from starlette.requests import ClientDisconnect, Request

        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return None
        try:
            response = await self._release.respond(body)
        except Exception:
            logging.getLogger("driftline").exception("A prediction failed.")
            response = json_response({"error": "The prediction failed: see the log of the release."}, 500)
        return await response(scope, receive, send)


def make_service(folder: Path) -> Service[Any]:
    """Make the BentoML service of the release in `folder` (manifest.json, model.skops, golden.json)."""
    import bentoml
    from starlette.applications import Starlette
    from starlette.routing import Route

    loaded = TabularRelease(folder)

    async def get_info(_: HttpRequest) -> Response:
        return json_response(loaded.info.model_dump())

    request, response = raw_request_type(loaded.schema.request), response_type(loaded.schema.answer)
    members = {
        "loaded": loaded,
        "predict": bentoml.api(TabularService.predict, route=PREDICT, input_spec=request, output_spec=response),
        "release": bentoml.api(TabularService.release, route="/release", output_spec=ReleaseAnswer),
    }
    service = bentoml.service(
        type("Predictor", (TabularService,), members),
        name=loaded.info.case,
        traffic={"timeout": 60},
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": PREDICT},  # nothing collects these spans, and they take longer than a prediction
    )
    service.add_asgi_middleware(PredictRoute, release=loaded)
    service.mount_asgi_app(Starlette(routes=[Route("/release", get_info, methods=["GET"])]), path="/", name="info")
    return service
