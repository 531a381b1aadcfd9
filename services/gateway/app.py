"""The gateway's HTTP interface: authenticates and parses requests, and formats errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.access import Access
from services.gateway.background import BackgroundLoops
from services.gateway.body import read_body
from services.gateway.config_cache import ConfigCache
from services.gateway.guard_rules import GuardRules
from services.gateway.guardrails import Guardrails
from services.gateway.hosts import HostCheck
from services.gateway.log_redaction import LogRedaction
from services.gateway.metering import Metering
from services.gateway.metrics import GatewayMetrics
from services.gateway.openapi import openapi_document
from services.gateway.outbox import Outbox
from services.gateway.parameters import check_tokens
from services.gateway.rate_limits import RateLimits
from services.gateway.readiness import Readiness
from services.gateway.release_health import ReleaseHealth
from services.gateway.release_metrics import release_metrics
from services.gateway.request_handler import RequestHandler, nested_too_deep
from services.gateway.request_log import RequestLog
from services.gateway.upstream import UpstreamPool
from services.gateway.usage_writer import UsageWriter
from services.gateway.webhooks import MAX_PUSH, WebhookReceiver
from services.rollout.routing import LANGUAGE, TABULAR
from services.serving.disconnect import while_connected
from services.store.api_error import ApiError
from services.store.approvals import ApprovalDecision, Review, decide, list_approvals
from services.store.database import Store
from services.store.feedback import Feedback, store_feedback
from services.store.keys import Key
from tasks.core.errors import InputError
from tasks.core.loops import loops
from tasks.core.settings import Settings

MAX_FEEDBACK = 128 * 1024  # bytes; enough for the longest correction with all characters escaped
MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')


class Gateway:
    """One process of the gateway: its parts, and a handler for each route."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.access = Access(settings)
        self.worker = f"{secrets.token_hex(6)}"

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the store, start the loops, and close everything in reverse order."""
        settings, metrics = self._settings, GatewayMetrics()
        self.metrics, self.store = metrics, Store(settings)
        self.config_cache = ConfigCache(self.store)
        self.outbox = Outbox(self.store, settings)
        background = BackgroundLoops(self.store, self.config_cache, self.outbox, self.worker)
        loops.on_failure.append(metrics.count_loop_failure)
        await asyncio.to_thread(background.start)
        self.upstream = upstream = UpstreamPool(lambda: self.config_cache.routes, metrics)
        guardrails = Guardrails(GuardRules(settings.state, upstream.sessions), settings.gateway_log)
        self.redaction = LogRedaction(settings.gateway_log)
        usage_writer, folder = UsageWriter(self.store, self.worker), settings.state / "gateway" / "requests"
        log = RequestLog(folder, self.worker, self.redaction.redact_for_log, metrics.unlogged.inc)
        self.metering = Metering(RateLimits(settings.gateway_limits), usage_writer, metrics, log)
        self.request_handler = RequestHandler(self.metering, upstream, guardrails, metrics)
        self.release_health = ReleaseHealth(lambda: self.config_cache.routes, upstream.is_ready)
        self.webhooks = WebhookReceiver(self.store, settings, self.outbox)
        self.readiness = Readiness(self.config_cache, usage_writer, log, background)
        tasks = [background.delivery.start(), self.metering.meter.loop.start(), self.release_health.loop.start()]
        try:
            yield
        finally:
            for task in tasks:
                await task.stop()
            await upstream.close()
            await asyncio.to_thread(log.close)
            await asyncio.to_thread(usage_writer.close)
            await asyncio.to_thread(background.stop)
            loops.on_failure.remove(metrics.count_loop_failure)
            self.store.close()

    async def predict(self, http: Request) -> Response:
        key = self._authenticate(http, "predict")
        rollout = self.config_cache.routes.rollout(http.path_params["case"], TABULAR)
        body = await read_body(http)
        return await self.request_handler.predict(key, rollout, body, http.headers.get("x-entity", ""))

    async def chat_completions(self, http: Request) -> Response:
        return await self._complete(http, "chat", "messages")

    async def embeddings(self, http: Request) -> Response:
        return await self._complete(http, "embeddings", "input")

    async def search(self, http: Request) -> Response:
        return await self._complete(http, "search", "query")

    async def list_models(self, http: Request) -> Response:
        self._authenticate(http, "predict", "operate")
        routes = self.config_cache.routes
        tags = [route.tag for route in routes.by_digest.values() if route.kind == LANGUAGE and route.addresses]
        names = [*sorted(routes.cases(LANGUAGE)), *sorted(tags)]
        return JSONResponse({"object": "list", "data": [model_object(name) for name in names]})

    async def retrieve_model(self, http: Request) -> Response:
        self._authenticate(http, "predict", "operate")
        name = http.path_params["model"]
        self.config_cache.routes.named(name, LANGUAGE)
        return JSONResponse(model_object(name))

    async def create_feedback(self, http: Request) -> Response:
        key = self._authenticate(http, "feedback")
        await self.metering.limit_feedback(key)
        try:
            feedback = Feedback.model_validate_json(await read_body(http, MAX_FEEDBACK))
        except ValidationError as error:
            raise _invalid(error) from error
        redacted, request_id = self.redaction.redact_feedback(feedback), http.path_params["request_id"]
        return JSONResponse(await asyncio.to_thread(store_feedback, self.store, key, request_id, redacted), 201)

    async def receive_webhook(self, http: Request) -> Response:
        self.webhooks.check_headers(http.headers)
        status = await self.webhooks.handle(http.headers, await read_body(http, MAX_PUSH))
        return JSONResponse({"status": status}, 202)

    async def list_approvals(self, http: Request) -> Response:
        self._authenticate(http, "approve")
        approvals = await asyncio.to_thread(list_approvals, self.store)
        waiting = [each.model_dump(mode="json") for each in approvals if each.state == "waiting"]
        return JSONResponse({"approvals": waiting})

    async def decide_approval(self, http: Request) -> Response:
        key = self._authenticate(http, "approve")
        try:
            decision = ApprovalDecision.model_validate_json(await read_body(http))
        except ValidationError as error:
            raise _invalid(error) from error
        case, via = http.path_params["case"], f"api, key {key.id}"
        try:
            review = Review(decision.evidence, decision.decision == "approve", key.owner, via, decision.reason)
            approval = await asyncio.to_thread(decide, self.store, case, review)
        except InputError as error:
            raise ApiError(409, " ".join(str(error).split()), code="not_decided") from error
        return JSONResponse(approval.model_dump(mode="json"), 201)

    async def healthz(self, _: Request) -> Response:
        """Liveness."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, http: Request) -> Response:
        """Readiness for all clients; champions and problems only for operators."""
        problem, unready = self.readiness.problem, self.release_health.unready
        if unready and not problem:
            problem = "the engines of some releases do not answer"
        body: dict[str, Any] = {"status": problem or "ready"}
        if self.access.may_inspect(http, self.config_cache.keyring):
            guarded = self.config_cache.keyring.guarded
            body["asked_by"] = "API key" if guarded else "this machine only: there is no API key yet"
            rollouts = self.config_cache.routes.rollouts.items()
            body["champions"] = {case: rollout.champion.route.digest for case, rollout in rollouts}
            body |= {"unready": unready, **self.readiness.details}
        return JSONResponse(body, 503 if self.readiness.problem or self.release_health.all_unready else 200)

    async def get_metrics(self, http: Request) -> Response:
        self.access.require_inspect(http, self.config_cache.keyring)
        return Response(await asyncio.to_thread(self.metrics.text), media_type="text/plain; version=0.0.4")

    async def get_release_metrics(self, http: Request) -> Response:
        self.access.require_inspect(http, self.config_cache.keyring)
        text = await release_metrics(self.upstream.sessions, self.config_cache.routes)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def get_openapi(self, http: Request) -> Response:
        self.access.require_inspect(http, self.config_cache.keyring)
        return JSONResponse(openapi_document())

    def _authenticate(self, http: Request, *roles: str) -> Key:
        return self.access.authenticate(http, self.config_cache.keyring, *roles)

    async def _complete(self, http: Request, interface: str, required: str) -> Response:
        key = self._authenticate(http, "predict")
        body = await read_body(http)
        try:
            request: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if "depth" in str(error):
                raise await self._refuse_nested(interface, key, body, http.path_params.get("case")) from error
            raise ApiError(400, f"The body is not JSON: {error}.") from error
        request = request if isinstance(request, dict) else {}
        model = http.path_params.get("case") or request.get("model")
        if not isinstance(model, str) or required not in request:
            raise ApiError(400, f"The body must be an object with the model's name and {required}.")
        check_tokens(request)
        rollout = self.config_cache.routes.named(model, LANGUAGE)
        entity = http.headers.get("x-entity", "")
        return await while_connected(http, self.request_handler.complete(interface, key, rollout, request, entity))

    async def _refuse_nested(self, interface: str, key: Key, body: bytes, case: str | None) -> ApiError:
        """The error for JSON that is nested too deep to be parsed; it is recorded if the body names a model."""
        match = MODEL.search(body)
        try:
            name = case or (match[1].decode(errors="replace") if match else "")
            rollout = self.config_cache.routes.named(name, LANGUAGE)
        except ApiError:
            return nested_too_deep()
        return await self.request_handler.refuse_nested_request(interface, key, rollout)


def make_app(settings: Settings) -> Starlette:
    """The application of one process."""
    gateway = Gateway(settings)
    routes = [
        Route("/v1/predict/{case}", gateway.predict, methods=["POST"]),
        Route("/v1/chat/completions", gateway.chat_completions, methods=["POST"]),
        Route("/v1/embeddings", gateway.embeddings, methods=["POST"]),
        Route("/v1/search/{case}", gateway.search, methods=["POST"]),
        Route("/v1/models", gateway.list_models, methods=["GET"]),
        Route("/v1/models/{model}", gateway.retrieve_model, methods=["GET"]),
        Route("/v1/feedback/{request_id}", gateway.create_feedback, methods=["POST"]),
        Route("/hooks/git", gateway.receive_webhook, methods=["POST"]),
        Route("/v1/approvals", gateway.list_approvals, methods=["GET"]),
        Route("/v1/approvals/{case}", gateway.decide_approval, methods=["POST"]),
        Route("/healthz", gateway.healthz, methods=["GET"]),
        Route("/readyz", gateway.readyz, methods=["GET"]),
        Route("/metrics", gateway.get_metrics, methods=["GET"]),
        Route("/metrics/releases", gateway.get_release_metrics, methods=["GET"]),
        Route("/openapi.json", gateway.get_openapi, methods=["GET"]),
    ]
    handlers: Any = {
        ApiError: handle_api_error,
        HTTPException: handle_http_exception,
        ClientDisconnect: handle_client_disconnect,
        SQLAlchemyError: handle_unavailable_store,
        Exception: handle_unexpected,
    }
    hosts = [Middleware(HostCheck, settings)]
    return Starlette(routes=routes, middleware=hosts, exception_handlers=handlers, lifespan=gateway.lifespan)


def model_object(name: str) -> dict[str, Any]:
    """A model in OpenAI's form."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "driftline"}


async def handle_api_error(_: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


async def handle_http_exception(_: Request, error: HTTPException) -> Response:
    return JSONResponse(ApiError(error.status_code, error.detail).body, error.status_code, error.headers)


async def handle_client_disconnect(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def handle_unavailable_store(_: Request, error: Exception) -> Response:
    logging.getLogger("driftline").error("The store failed: %s", error)
    refusal = ApiError(503, "The gateway's store does not answer, or can't be written.", code="no_store", wait=5)
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def handle_unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse(ApiError(500, "The gateway failed; its log has the error.").body, 500)


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{where}: {reason}" if where else reason, param=where or None)
