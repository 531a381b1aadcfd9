"""Sends chat requests to the engine of a release, with a deadline and one retry."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from services.serving.chat_error import ChatError
from services.serving.engine_watch import EngineWatch
from services.serving.full_response import BrokenStreamError, error_message, full_response, join_responses
from tasks.language.chat_request import MAX_SEED, ChatCompletionRequest
from tasks.language.released_model import ReleasedModel

if TYPE_CHECKING:
    import aiohttp

    from tasks.language.engine import Engine
    from tasks.language.vllm import VllmServer

DEADLINE = 280.0  # seconds for a call; the gateway waits a little longer
ENGINE_TIMEOUT = 15.0  # seconds that a call waits for an engine that restarts

EngineResponse: TypeAlias = "dict[str, Any] | tuple[bytes, aiohttp.ClientResponse]"


class EngineClient:
    """The client of the engine that a watch holds."""

    def __init__(self, release: ReleasedModel, watch: EngineWatch[Engine | VllmServer], deadline: float) -> None:
        self._release, self._watch, self._deadline = release, watch, deadline
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def forward(self, chat: ChatCompletionRequest) -> tuple[EngineResponse, float]:
        """The engine's answer, or several as choices of one, and the seconds lost. Raises: ChatError."""
        if chat.n == 1:
            return await self._forward_one(chat)
        if chat.stream:
            raise ChatError(400, "n: several answers can't be streamed; omit stream, or n.", param="n")
        # llama.cpp's own `n` counts the tokens of one answer alone
        seeds = [chat.seed if chat.seed < 0 else (chat.seed + number) % MAX_SEED for number in range(chat.n)]
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(self._try_one(chat.model_copy(update={"n": 1, "seed": seed}))) for seed in seeds]
        outcomes = [call.result() for call in calls]
        for outcome in outcomes:
            if isinstance(outcome, ChatError):
                raise outcome
        answers = [outcome for outcome in outcomes if not isinstance(outcome, ChatError)]
        return join_responses([answer for answer, _ in answers if isinstance(answer, dict)]), max(
            lost for _, lost in answers
        )

    async def _try_one(self, chat: ChatCompletionRequest) -> tuple[EngineResponse, float] | ChatError:
        try:
            return await self._forward_one(chat)
        except ChatError as error:
            return error

    async def _forward_one(self, chat: ChatCompletionRequest) -> tuple[EngineResponse, float]:
        """The engine's answer, and the seconds lost on engines that died or hung.

        When an engine ends before its answer, the call is retried once at the next one.
        Raises: ChatError.
        """
        import aiohttp

        begun = time.monotonic()
        engine = await self._watch.engine(ENGINE_TIMEOUT)
        for last in (False, True):
            if engine is None:
                raise ChatError(503, f"The engine restarts: {self._watch.fault}.", code="model_unavailable")
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
                engine = await self._watch.replacement(engine, ENGINE_TIMEOUT)
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

        if (field := chat.uses_tools) and not engine.supports_tools:
            raise ChatError(400, f"{field}: this model's chat template has no tools; omit them.", param=field)
        request = self._release.request(chat)
        response = await self._connections().post(
            engine.completions_url,
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
