"""The routes of a language model's service: they pass requests to its engine, and its answers to clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import ValidationError

from services.serving.disconnect import while_connected
from services.serving.embeddings import Embeddings, EmbeddingsRequest
from services.serving.engine_watch import EngineWatch
from services.serving.full_response import BrokenStreamError, error_message, full_response
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.engine_server import MAX_CALLS
from tasks.language.released_model import ReleasedModel, check_golden

if TYPE_CHECKING:
    import aiohttp
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from tasks.language.engine import Engine
    from tasks.language.vllm import VllmServer

RELEASE_HEADER = "x-driftline-release"
LOST_SECONDS_HEADER = (
    "x-driftline-lost-seconds"  # spent on an engine that died or hung: the gateway does not charge for them
)
STARTUP_EXAMPLES = 2  # golden examples that an engine must answer before the service is ready
DEADLINE = 280.0  # seconds for a call; the gateway waits a little longer
ENGINE_TIMEOUT = 15.0  # seconds that a call waits for an engine that restarts
RETRY_AFTER = 5  # seconds, in a 503 response

RequestT = TypeVar("RequestT", ChatCompletionRequest, EmbeddingsRequest)
EngineResponse: TypeAlias = "dict[str, Any] | tuple[bytes, aiohttp.ClientResponse]"


class ChatError(Exception):
    """An error that the client gets in OpenAI's form."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


class ChatApp:
    """OpenAI's API of one release. Call `watch.open()` before the first request, and `close()` at the end."""

    def __init__(self, release: ReleasedModel, deadline: float = DEADLINE) -> None:
        self.release = release
        self.info = {"release": release.digest, "case": release.case, "as_of": release.as_of}
        self.watch: EngineWatch[Engine | VllmServer] = EngineWatch(
            release.start, lambda engine: check_golden(engine, release.golden[:STARTUP_EXAMPLES])
        )
        self._deadline = deadline
        self._headers = {RELEASE_HEADER: release.digest}
        self._embeddings = Embeddings(release.embedder) if release.embedder else None
        self._session: aiohttp.ClientSession | None = None
        self._calls = 0  # at the engine

    def starlette(self) -> Starlette:
        """The application to mount."""
        from starlette.applications import Starlette
        from starlette.requests import ClientDisconnect
        from starlette.routing import Route

        routes = [
            Route("/v1/chat/completions", self.create_chat_completion, methods=["POST"]),
            Route("/v1/embeddings", self.create_embeddings, methods=["POST"]),
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/release", self.get_release, methods=["GET"]),
        ]
        handlers: Any = {ChatError: self.handle_error, ClientDisconnect: self.handle_disconnect}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def close(self) -> None:
        if self._session:
            await self._session.close()
        await asyncio.to_thread(self.watch.close)

    async def create_chat_completion(self, http: Request) -> Response:
        """POST /v1/chat/completions."""
        from services.serving.event_stream import EventStream

        chat = await self._read(http, ChatCompletionRequest)
        with ExitStack() as slot:
            slot.enter_context(self._slot())
            answer, lost = await while_connected(http, self._forward(chat))
            headers = {LOST_SECONDS_HEADER: f"{lost:.3f}"} if lost > 0.1 else {}
            if isinstance(answer, dict):
                return self._json({**answer, "release": self.release.digest}, 200, headers)
            return EventStream(*answer, slot.pop_all(), self._headers | headers)

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
        if not self.release.is_named(request.model):
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

    async def _forward(self, chat: ChatCompletionRequest) -> tuple[EngineResponse, float]:
        """The engine's answer, and the seconds lost on engines that died or hung.

        When an engine ends before its answer, the call is retried once at the next one.
        Raises: ChatError.
        """
        import aiohttp

        begun = time.monotonic()
        engine = await self.watch.engine(ENGINE_TIMEOUT)
        for last in (False, True):
            if engine is None:
                raise ChatError(503, f"The engine restarts: {self.watch.fault}.", code="model_unavailable")
            try:
                lost = time.monotonic() - begun
                return await self._attempt(engine, chat, self._deadline - lost), lost
            except TimeoutError as error:
                text = f"The answer was not complete within {self._deadline:.0f} s."
                raise ChatError(504, text, code="timeout") from error
            except BrokenStreamError as error:
                raise ChatError(502, str(error)) from error
            except aiohttp.ClientError as error:
                if last:
                    text = f"The engine does not answer: {type(error).__name__}."
                    raise ChatError(503, text, code="model_unavailable") from error
                engine = await self.watch.replacement(engine, ENGINE_TIMEOUT)
        raise AssertionError("The second attempt returns or raises.")

    async def _attempt(
        self, engine: Engine | VllmServer, chat: ChatCompletionRequest, seconds: float
    ) -> EngineResponse:
        """The complete answer; or the first bytes of a stream, and the response to read on from.

        Closing the connection, at the deadline or when the client disconnects, frees the engine's slot: at once for
        a stream. For a complete answer llama.cpp checks its client only when no call got a token for a second. So
        complete answers are assembled here from a stream.
        """
        import aiohttp

        request = self.release.request(chat)
        response = await self._connections().post(
            f"{engine.address}/v1/chat/completions",
            json=request,
            headers={"Authorization": f"Bearer {engine.key}"} if engine.key else {},
            timeout=aiohttp.ClientTimeout(total=max(seconds, 0.001), sock_connect=10),
        )
        try:
            if chat.stream and response.ok:
                if first := await response.content.readany():
                    return first, response
                raise aiohttp.ServerDisconnectedError("The stream ended before its first byte.")
            answer = await response.read()
        except BaseException:
            response.close()
            raise
        if response.ok:
            return full_response(answer) if request["stream"] else json.loads(answer)
        # another status concerns this answer alone, for instance one that no parser reads; the engine lives
        raise ChatError(400 if response.status == 400 else 502, error_message(answer))

    def _connections(self) -> aiohttp.ClientSession:
        import aiohttp  # not httpx, whose work for each token takes CPU time from the engine

        if self._session is None:
            # one connection for each request: llama.cpp closes it after a stream, and a quick reuse would fail
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session
