"""The gateway's HTTP interface: who asks is found here, what is asked is read here, and errors get their form."""

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
from services.gateway.background import Background
from services.gateway.body import read_body
from services.gateway.config_cache import ConfigCache
from services.gateway.guardrails import Guardrails
from services.gateway.hosts import HostCheck
from services.gateway.metering import Metering
from services.gateway.metrics import GatewayMetrics
from services.gateway.openapi import document
from services.gateway.outbox import Outbox
from services.gateway.parameters import check_tokens
from services.gateway.rate_limits import RateLimits
from services.gateway.readiness import Readiness
from services.gateway.release_health import ReleaseHealth
from services.gateway.release_metrics import release_metrics
from services.gateway.request_handler import RequestHandler, too_deep
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

MAX_FEEDBACK = 128 * 1024  # bytes; the longest correction has that many when every letter is escaped
MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')


class Gateway:
    """One process of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.access = Access(settings)
        self.worker = f"{secrets.token_hex(6)}"

    @contextlib.asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        """From the first connection of the store to the last line of the log."""
        settings, figures = self._settings, GatewayMetrics()
        self.figures, self.store = figures, Store(settings)
        self.memory = ConfigCache(self.store)
        telling = Outbox(self.store, settings)
        background = Background(self.store, self.memory, telling, self.worker)
        loops.on_failure.append(figures.loop_failed)
        await asyncio.to_thread(background.start)
        ledger, policy = UsageWriter(self.store, self.worker), Guardrails(settings.gateway_log)
        log = RequestLog(settings.state / "gateway" / "requests", self.worker, policy.logged, figures.unlogged.inc)
        self.forward = forward = UpstreamPool(lambda: self.memory.routes, figures)
        self.accounts = Metering(RateLimits(settings.gateway_limits), ledger, figures, log)
        self.policy = policy
        self.answering = RequestHandler(self.accounts, forward, policy, figures)
        self.release_health = ReleaseHealth(lambda: self.memory.routes, forward.is_ready)
        self.hooks = WebhookReceiver(self.store, settings, telling)
        self.readiness = Readiness(self.memory, ledger, log, background)
        tasks = [background.delivery.start(), self.accounts.meter.loop.start(), self.release_health.loop.start()]
        try:
            yield
        finally:
            for task in tasks:
                await task.stop()
            await forward.close()
            await asyncio.to_thread(log.close)
            await asyncio.to_thread(ledger.close)
            await asyncio.to_thread(background.stop)
            loops.on_failure.remove(figures.loop_failed)
            self.store.close()

    async def predict(self, http: Request) -> Response:
        key = self._who(http, "predict")
        rollout = self.memory.routes.rollout(http.path_params["case"], TABULAR)
        body = await read_body(http)
        return await self.answering.predict(key, rollout, body, http.headers.get("x-entity", ""))

    async def chat(self, http: Request) -> Response:
        return await self._complete(http, "chat", "messages")

    async def embeddings(self, http: Request) -> Response:
        return await self._complete(http, "embeddings", "input")

    async def models(self, http: Request) -> Response:
        self._who(http, "predict", "operate")
        routes = self.memory.routes
        tags = [route.tag for route in routes.by_digest.values() if route.kind == LANGUAGE and route.addresses]
        list_approvals = [*sorted(routes.cases(LANGUAGE)), *sorted(tags)]
        return JSONResponse({"object": "list", "data": [model_object(name) for name in list_approvals]})

    async def model(self, http: Request) -> Response:
        self._who(http, "predict", "operate")
        name = http.path_params["model"]
        self.memory.routes.named(name, LANGUAGE)
        return JSONResponse(model_object(name))

    async def feedback(self, http: Request) -> Response:
        key = self._who(http, "feedback")
        await self.accounts.limit_feedback(key)
        try:
            said = Feedback.model_validate_json(await read_body(http, MAX_FEEDBACK))
        except ValidationError as error:
            raise _invalid(error) from error
        about = await asyncio.to_thread(
            store_feedback, self.store, key, http.path_params["request_id"], self.policy.stored(said)
        )
        return JSONResponse(about, 201)

    async def git(self, http: Request) -> Response:
        self.hooks.check_headers(http.headers)
        return JSONResponse({"status": await self.hooks.take(http.headers, await read_body(http, MAX_PUSH))}, 202)

    async def waiting(self, http: Request) -> Response:
        self._who(http, "approve")
        asked = await asyncio.to_thread(list_approvals, self.store)
        return JSONResponse({"approvals": [each.model_dump(mode="json") for each in asked if each.state == "waiting"]})

    async def decide(self, http: Request) -> Response:
        key = self._who(http, "approve")
        try:
            said = ApprovalDecision.model_validate_json(await read_body(http))
        except ValidationError as error:
            raise _invalid(error) from error
        case, via = http.path_params["case"], f"api, key {key.id}"
        try:
            review = Review(said.evidence, said.decision == "approve", key.owner, via, said.reason)
            decided = await asyncio.to_thread(decide, self.store, case, review)
        except InputError as error:
            raise ApiError(409, " ".join(str(error).split()), code="not_decided") from error
        return JSONResponse(decided.model_dump(mode="json"), 201)

    async def healthy(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, http: Request) -> Response:
        """Whether it can answer, to everybody; of which cases, for whom and what is wrong, to who may inspect."""
        problem, unready = self.readiness.problem, self.release_health.unready
        if unready and not problem:
            problem = "the engines of some releases do not answer"
        body: dict[str, Any] = {"status": problem or "ready"}
        if self.access.may_inspect(http, self.memory.keyring):
            guarded = self.memory.keyring.guarded
            body["asked_by"] = "API key" if guarded else "this machine only: no API key was made yet"
            rollouts = self.memory.routes.rollouts.items()
            body["champions"] = {case: rollout.champion.route.digest for case, rollout in rollouts}
            body |= {"unready": unready, **self.readiness.details}
        return JSONResponse(body, 503 if self.readiness.problem or self.release_health.all_unready else 200)

    async def metrics(self, http: Request) -> Response:
        self.access.require_inspect(http, self.memory.keyring)
        return Response(await asyncio.to_thread(self.figures.text), media_type="text/plain; version=0.0.4")

    async def metrics_of_releases(self, http: Request) -> Response:
        self.access.require_inspect(http, self.memory.keyring)
        text = await release_metrics(self.forward.sessions, self.memory.routes)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, http: Request) -> Response:
        self.access.require_inspect(http, self.memory.keyring)
        return JSONResponse(document())

    def _who(self, http: Request, *roles: str) -> Key:
        return self.access.key(http, self.memory.keyring, *roles)

    async def _complete(self, http: Request, interface: str, needs: str) -> Response:
        key = self._who(http, "predict")
        body = await read_body(http)
        try:
            asked: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if "depth" in str(error):
                raise await self._too_deep(interface, key, body) from error
            raise ApiError(400, f"The body is not JSON: {error}.") from error
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str) or needs not in asked:
            raise ApiError(400, f"The body is an object with a model's name and {needs}.")
        check_tokens(asked)
        rollout = self.memory.routes.named(asked["model"], LANGUAGE)
        entity = http.headers.get("x-entity", "")
        return await while_connected(http, self.answering.complete(interface, key, rollout, asked, entity))

    async def _too_deep(self, interface: str, key: Key, body: bytes) -> ApiError:
        """What the client is told of a request that is nested too deep to be read; entered if it names a model."""
        named = MODEL.search(body)
        try:
            rollout = self.memory.routes.named(named[1].decode(errors="replace") if named else "", LANGUAGE)
        except ApiError:
            return too_deep()
        return await self.answering.refuse_too_deep(interface, key, rollout)


def make_app(settings: Settings) -> Starlette:
    """The application of one process."""
    gateway = Gateway(settings)
    routes = [
        Route("/v1/predict/{case}", gateway.predict, methods=["POST"]),
        Route("/v1/chat/completions", gateway.chat, methods=["POST"]),
        Route("/v1/embeddings", gateway.embeddings, methods=["POST"]),
        Route("/v1/models", gateway.models, methods=["GET"]),
        Route("/v1/models/{model}", gateway.model, methods=["GET"]),
        Route("/v1/feedback/{request_id}", gateway.feedback, methods=["POST"]),
        Route("/hooks/git", gateway.git, methods=["POST"]),
        Route("/v1/approvals", gateway.waiting, methods=["GET"]),
        Route("/v1/approvals/{case}", gateway.decide, methods=["POST"]),
        Route("/healthz", gateway.healthy, methods=["GET"]),
        Route("/readyz", gateway.ready, methods=["GET"]),
        Route("/metrics", gateway.metrics, methods=["GET"]),
        Route("/metrics/releases", gateway.metrics_of_releases, methods=["GET"]),
        Route("/openapi.json", gateway.openapi, methods=["GET"]),
    ]
    handlers: Any = {
        ApiError: handle_refusal,
        HTTPException: handle_http_exception,
        ClientDisconnect: handle_client_disconnect,
        SQLAlchemyError: handle_unavailable_store,
        Exception: handle_unexpected,
    }
    hosts = [Middleware(HostCheck, settings)]
    return Starlette(routes=routes, middleware=hosts, exception_handlers=handlers, lifespan=gateway.life)


def model_object(name: str) -> dict[str, Any]:
    """A model in OpenAI's form."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "driftline"}


async def handle_refusal(_: Request, refusal: ApiError) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def handle_http_exception(_: Request, error: HTTPException) -> Response:
    return JSONResponse(ApiError(error.status_code, error.detail).body, error.status_code, error.headers)


async def handle_client_disconnect(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def handle_unavailable_store(_: Request, error: Exception) -> Response:
    logging.getLogger("driftline").error("The store failed: %s", error)
    refusal = ApiError(503, "The gateway's store does not answer, or can't be written.", code="no_store", wait=5)
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def handle_unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse(ApiError(500, "The gateway failed. Its log says why.").body, 500)


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{where}: {why}" if where else why, param=where or None)
