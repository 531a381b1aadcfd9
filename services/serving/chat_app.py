"""The routes of a language model's service: they pass requests to its engine, and its answers to clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from services.serving.chat_error import ChatError
from services.serving.disconnect import while_connected
from services.serving.embeddings import Embeddings, EmbeddingsRequest
from services.serving.engine_client import DEADLINE, EngineClient
from services.serving.engine_watch import EngineWatch
from services.serving.knowledge import KnowledgeBase, SearchRequest, passage_result, retrieval_of
from services.serving.knowledge_chat import KnowledgeChat, check_request, stream_events
from services.serving.retrieval import RETRIEVAL_HEADER
from services.serving.upstream_client import UpstreamClient
from tasks.guard.sealed_files import GUARD_PATH, encode_guard
from tasks.knowledge.labels import LABELS_HEADER, parse_labels
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.engine_server import MAX_CALLS
from tasks.language.released_model import ReleasedModel, check_golden
from tasks.language.remote_engine import RemoteEngine

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from tasks.language.engine import Engine
    from tasks.language.vllm import VllmServer

RELEASE_HEADER, PROMPT_HEADER = "x-driftline-release", "x-driftline-prompt"
LOST_SECONDS_HEADER = (
    "x-driftline-lost-seconds"  # spent on an engine that died or hung: the gateway does not charge for them
)
STARTUP_EXAMPLES = 2  # golden examples that an engine must answer before the service is ready
RETRY_AFTER = 5  # seconds, in a 503 response

RequestT = TypeVar("RequestT", ChatCompletionRequest, EmbeddingsRequest, SearchRequest)


class ChatApp:
    """OpenAI's API of one release. Call `open()` before the first request, and `close()` at the end."""

    def __init__(self, release: ReleasedModel, deadline: float = DEADLINE) -> None:
        self.release = release
        self.info = {"release": release.digest, "case": release.case, "as_of": release.as_of}
        self.watch: EngineWatch[Any]
        self._engine: EngineClient | UpstreamClient
        if release.upstream:
            remote: EngineWatch[RemoteEngine] = EngineWatch(release.reach, RemoteEngine.connect, waits=True)
            self.watch, self._engine = remote, UpstreamClient(release, remote, deadline)
        else:
            local: EngineWatch[Engine | VllmServer] = EngineWatch(release.start, self._check)
            self.watch, self._engine = local, EngineClient(release, local, deadline)
        self._headers = {RELEASE_HEADER: release.digest, PROMPT_HEADER: release.prompt.label}
        self._knowledge = KnowledgeBase(release) if release.knowledge_files else None
        self.uses_engine = self._knowledge is None
        self._embeddings = Embeddings(release.embedder) if release.embedder else None
        self._calls = 0  # at the engine

    def open(self) -> None:
        """Raises: DriftlineError when the knowledge base is damaged, or the engine can't be started."""
        if self._knowledge:
            self._knowledge.open()
            self.uses_engine = not self._knowledge.is_extractive  # sentences of passages need no model
        if self.uses_engine:
            self.watch.open()

    @property
    def ready(self) -> bool:
        return self.watch.ready or not self.uses_engine

    def _check(self, engine: Engine | VllmServer) -> None:
        check_golden(engine, self.release.golden[:STARTUP_EXAMPLES])
        _ = engine.supports_tools  # read before the first call, which runs in the event loop

    def starlette(self) -> Starlette:
        """The application to mount."""
        from starlette.applications import Starlette
        from starlette.requests import ClientDisconnect
        from starlette.routing import Route

        routes = [
            Route("/v1/chat/completions", self.create_chat_completion, methods=["POST"]),
            Route("/v1/search", self.search, methods=["POST"]),
            Route("/v1/embeddings", self.create_embeddings, methods=["POST"]),
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/release", self.get_release, methods=["GET"]),
            Route(GUARD_PATH, self.get_guard, methods=["GET"]),
        ]
        handlers: Any = {ChatError: self.handle_error, ClientDisconnect: self.handle_disconnect}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def close(self) -> None:
        await self._engine.close()
        if self._knowledge:
            self._knowledge.close()
        if self.uses_engine:
            await asyncio.to_thread(self.watch.close)

    async def create_chat_completion(self, http: Request) -> Response:
        """POST /v1/chat/completions."""
        from services.serving.event_stream import EventStream

        chat = await self._read(http, ChatCompletionRequest)
        check_request(chat, self._knowledge)
        with ExitStack() as slot:
            slot.enter_context(self._slot())
            if self._knowledge:
                return await self._answer_from(self._knowledge, http, chat, slot)
            answer, lost = await while_connected(http, self._engine.forward(chat))
            headers = {LOST_SECONDS_HEADER: f"{lost:.3f}"} if lost > 0.1 else {}
            if isinstance(answer, dict):
                return self._json({**answer, "release": self.release.digest}, 200, headers)
            first, source = answer
            return EventStream(first, source, slot.pop_all(), self._headers | headers)

    async def _answer_from(
        self, knowledge: KnowledgeBase, http: Request, chat: ChatCompletionRequest, slot: ExitStack
    ) -> Response:
        """The answer from the passages that the request's key may see."""
        from starlette.responses import Response

        from services.serving.cited_stream import CitedStream, encode_events

        labels = parse_labels(http.headers.get(LABELS_HEADER))
        answered = await while_connected(
            http, KnowledgeChat(knowledge, self._engine, self.release.tag).answer(chat, labels)
        )
        headers = {RETRIEVAL_HEADER: answered.retrieval.model_dump_json()}
        if answered.lost > 0.1:
            headers[LOST_SECONDS_HEADER] = f"{answered.lost:.3f}"
        if answered.response is None:
            return CitedStream(answered, slot.pop_all(), self._headers | headers, knowledge, chat.include_passages)
        response = {**answered.response, "release": self.release.digest}
        if not chat.stream:
            return self._json(response, 200, headers)
        usage = chat.stream_options is not None and chat.stream_options.include_usage
        events = encode_events(stream_events(response, include_usage=usage))
        return Response(events, media_type="text/event-stream", headers=self._headers | headers)

    async def search(self, http: Request) -> Response:
        """POST /v1/search."""
        if self._knowledge is None:
            raise ChatError(404, f"{self.release.tag} has no knowledge base: there is nothing to search.")
        request = await self._read(http, SearchRequest)
        labels = parse_labels(http.headers.get(LABELS_HEADER))
        hits, tokens, guarded = await self._knowledge.search(request, labels)
        response = {
            "release": self.release.digest,
            "results": list(map(passage_result, hits)),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return self._json(response, 200, {RETRIEVAL_HEADER: retrieval_of(hits, guarded=guarded).model_dump_json()})

    async def create_embeddings(self, http: Request) -> Response:
        """POST /v1/embeddings."""
        if self._embeddings is None:
            raise ChatError(404, f"{self.release.tag} has no embedder: it answers chat only.", param="model")
        request = await self._read(http, EmbeddingsRequest)
        try:
            vectors = await self._embeddings.create(request)
        except ValueError as error:
            raise ChatError(400, str(error), param="input") from error
        return self._json({**vectors, "model": self.release.tag, "release": self.release.digest})

    async def list_models(self, _: Request) -> Response:
        """GET /v1/models."""
        model = {"id": self.release.tag, "object": "model", "owned_by": "driftline", "created": 0}
        return self._json({"object": "list", "data": [model]})

    async def get_release(self, _: Request) -> Response:
        """GET /release."""
        return self._json(self.info)

    async def get_guard(self, _: Request) -> Response:
        """GET /guard: the files of the release's guardrails, for a gateway without its folder."""
        return self._json(encode_guard(self.release.folder))

    async def handle_error(self, _: Request, error: ChatError) -> Response:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        body = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        wait = {"retry-after": str(RETRY_AFTER)} if error.status == 503 else {}
        return self._json({"error": body}, error.status, wait)

    async def handle_disconnect(self, _: Request, __: Exception) -> Response:
        """End the call of a client that disconnected."""
        return self._json(None, 499)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(value, status_code=status, headers={**self._headers, **(headers or {})})

    async def _read(self, http: Request, form: type[RequestT]) -> RequestT:
        """Raises: ChatError."""
        try:
            request = form.model_validate_json(await http.body() or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise ChatError(400, f"{where}: {reason}" if where else reason, param=where or None) from error
        if not isinstance(request, SearchRequest) and not self.release.is_named(request.model):
            raise ChatError(404, f"This service answers as {self.release.tag}.", param="model")
        return request

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Count a call. Raises: ChatError when the engine's queue is full."""
        if self._calls >= MAX_CALLS:
            raise ChatError(503, "Too many calls wait for this model already.", code="overloaded")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
