"""Sends chat requests to the server behind a release's address, with retries until a deadline, and reads strictly."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from services.serving.chat_error import ChatError
from services.serving.engine_watch import EngineWatch
from services.serving.upstream_stream import UpstreamStream
from tasks.core.errors import Unavailable
from tasks.language.chat_completion import estimate_usage, read_completion
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.released_model import ReleasedModel
from tasks.language.remote_engine import MAX_BYTES, RemoteEngine, error_text
from tasks.language.retry import is_passing, pause_before

if TYPE_CHECKING:
    import aiohttp

UpstreamResponse: TypeAlias = "dict[str, Any] | tuple[bytes, UpstreamStream]"
NO_ANSWER = "The model's server does not answer"


class UpstreamClient:
    """The client of the server whose reachability a watch checks."""

    def __init__(self, release: ReleasedModel, watch: EngineWatch[RemoteEngine], deadline: float) -> None:
        self._release, self._watch, self._deadline = release, watch, deadline
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def forward(self, chat: ChatCompletionRequest) -> tuple[UpstreamResponse, float]:
        """The server's answer, and the seconds lost on attempts that failed. Raises: ChatError."""
        import aiohttp

        engine = await self._watch.engine(0.0)
        if engine is None:
            raise ChatError(503, f"{NO_ANSWER}: {self._watch.fault}", code="model_unavailable")
        _check_request(engine, chat)
        content = json.dumps(self._release.upstream_request(chat)).encode()
        begun, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            lost, headers = time.monotonic() - begun, None
            try:
                response = await self._post(engine, content, self._deadline - lost)
                if response.status == 200:
                    return await self._read(response, content, stream=chat.stream), lost
                headers = {name.lower(): value for name, value in response.headers.items()}
                body = await _body_of(response)
                error = _refusal(response.status, body)
                if not is_passing(response.status, body):
                    raise error
            except TimeoutError as fault:
                text = f"The answer was not complete within {self._deadline:.0f} s."
                raise ChatError(504, text, code="timeout") from fault
            except aiohttp.ClientError as fault:
                error = ChatError(503, f"{NO_ANSWER}: {type(fault).__name__}.", code="model_unavailable")
            pause = pause_before(attempt, self._deadline - (time.monotonic() - begun), headers)
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    async def _post(self, engine: RemoteEngine, content: bytes, seconds: float) -> aiohttp.ClientResponse:
        import aiohttp

        try:
            headers = {"content-type": "application/json", **engine.upstream.headers}
        except Unavailable as error:
            raise ChatError(503, error.what, code="model_unavailable") from error
        timeout = aiohttp.ClientTimeout(total=max(seconds, 0.001), sock_connect=10)
        return await self._connections(engine).post(
            engine.completions_url, data=content, headers=headers, timeout=timeout, allow_redirects=False
        )

    async def _read(self, response: aiohttp.ClientResponse, content: bytes, *, stream: bool) -> UpstreamResponse:
        """The whole answer under the release's name; or the first event of a stream, and the others."""
        try:
            if stream:
                source = UpstreamStream(response, self._release.tag)
                return await source.first(), source
            body = await _body_of(response)
            completion = read_completion(body)
        except ValueError as error:
            response.close()
            raise ChatError(502, f"The model's server sent no chat completion. {error}", code="model_failed") from error
        except BaseException:
            response.close()
            raise
        answer: dict[str, Any] = json.loads(body)
        if completion.usage is None:
            answer["usage"] = estimate_usage(content, completion.text)
        return {**answer, "object": "chat.completion", "model": self._release.tag}

    def _connections(self, engine: RemoteEngine) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            external = engine.completions_url.startswith("https://")
            connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context() if external else False)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=external)
        return self._session


def _check_request(engine: RemoteEngine, chat: ChatCompletionRequest) -> None:
    """Refuse what would not reach the model. Raises: ChatError."""
    fixed = sorted(chat.model_fields_set & engine.upstream.parameters.keys())
    if not engine.upstream.json_schema and (chat.response_format or {}).get("type", "text") != "text":
        raise ChatError(400, "response_format: this model follows no schema; omit it.", param="response_format")
    if chat.ignore_eos:
        raise ChatError(400, "ignore_eos: only llama.cpp knows it; omit it.", param="ignore_eos")
    if fixed:
        raise ChatError(400, f"{fixed[0]}: the release sets it; omit it.", param=fixed[0])


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    """Raises: ValueError for a body without an end."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            response.close()
            raise ValueError(f"It is longer than {MAX_BYTES >> 20} MB.")
    return bytes(body)


def _refusal(status: int, body: bytes) -> ChatError:
    """What a client gets for a response that is no success: only what it can correct is its own error."""
    text = error_text(body)
    if status in (400, 413, 422):
        return ChatError(400, text)
    if is_passing(status, body):
        return ChatError(503, f"{NO_ANSWER}: HTTP {status}.", code="model_unavailable")
    return ChatError(502, f"The model's server refuses: HTTP {status}: {text}", code="model_failed")
