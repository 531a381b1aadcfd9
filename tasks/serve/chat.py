"""The service in a language model's Bento: OpenAI's chat completions, from a CPU engine of its own or from vLLM.

Embeddings, where the release has an embedder: tasks/serve/embeddings.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.foundation.engine import PATIENCE, Engine, engine
from tasks.foundation.errors import DriftlineError
from tasks.foundation.talk import ROLES, SYSTEM, turn
from tasks.serve.elsewhere import Elsewhere, elsewhere
from tasks.serve.embeddings import Embeddings, Wanted

if TYPE_CHECKING:
    from bentoml import Service
    from starlette.requests import Request as HttpRequest

RELEASE_HEADER = "x-driftline-release"
CHECKED = 2  # golden answers asked for before the service says that it is ready


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str = Field(pattern=f"^({'|'.join(ROLES)})$")
    content: str


class Chat(BaseModel):
    """A request in OpenAI's form. What is not named here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = Field(
        None, description='Left out: JSON by the release\'s own schema; {"type": "text"}: free.'
    )
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    ignore_eos: bool = Field(False, description="Go on until max_tokens: for load tests. Both engines know it.")
    cache_prompt: bool = Field(
        True, description="False: read the prompt anew. For llama.cpp; a vLLM server is not told."
    )
    user: str | None = None
    n: Literal[1] = 1

    @model_validator(mode="after")
    def _can_go_on(self) -> Chat:
        if self.ignore_eos and (self.response_format or {}).get("type") != "text":
            raise ValueError('ignore_eos needs the response_format {"type": "text"}: JSON by a schema has an end')
        return self


Asked = TypeVar("Asked", Chat, Wanted)


class Release:
    """What the service knows of the release in its folder."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sealed = manifest["sealed"]
        self.digest: str = manifest["digest"]
        self.case: str = sealed["case"]
        self.as_of: str = sealed["as_of"]
        self.tag = f"{self.case}:{self.digest[:12]}"
        self.model = folder / "model.gguf"
        self.context: int = sealed["context"]
        self.slots: int = sealed["serving"]["slots"]
        self.embedder = folder / "embedder" if sealed["serving"].get("embedder") else None
        self.elsewhere: bool = sealed["serving"].get("engine") == "vllm"
        self.base = f"base-{sealed['base']['digest'][:12]}" if self.elsewhere else ""  # as that server calls it
        self.answer_tokens: int = sealed["serving"]["answer_tokens"]
        self.system = (folder / "system.txt").read_text(encoding="utf-8")
        self.schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        self.golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))

    def request(self, chat: Chat) -> dict[str, Any]:
        """What the engine is asked: the release's system prompt, schema and length, unless the request has its own."""
        body = chat.model_dump(exclude_none=True, exclude={"model", "max_completion_tokens", "user", "n"})
        if self.elsewhere or chat.cache_prompt:
            del body["cache_prompt"]
        if chat.messages[0].role != SYSTEM:
            body["messages"].insert(0, turn(SYSTEM, self.system))
        body["max_tokens"] = chat.max_completion_tokens or chat.max_tokens or self.answer_tokens
        if chat.response_format is None:
            schema = {"name": "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, "model": self.tag}  # the engine says it after us

    def start(self) -> AbstractContextManager[Engine | Elsewhere]:
        """What answers for this release, as long as the context lasts."""
        if self.elsewhere:
            return elsewhere(self.tag)
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        return engine(self.model, threads=threads, slots=self.slots, context=self.context, name=self.tag)

    def answers_to(self, name: str | None) -> bool:
        return name in (None, self.case, self.tag, self.digest)


def make_service(folder: Path) -> Service[Any]:
    """Make the BentoML service of the release in `folder`, which holds its manifest, weights, prompt and schema."""
    import aiohttp  # not httpx, whose work for each token the engine's threads would lack
    import bentoml
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    release = Release(folder)
    headers = {RELEASE_HEADER: release.digest}
    about = {"release": release.digest, "case": release.case, "as_of": release.as_of}
    running: list[Engine | Elsewhere] = []  # one, once it is up
    asking: list[aiohttp.ClientSession] = []  # one, once somebody asks
    embeddings = Embeddings(release.embedder) if release.embedder else None

    def refuse(status: int, message: str, kind: str, param: str | None = None) -> Response:
        error = {"message": message, "type": kind, "param": param, "code": None}
        return JSONResponse({"error": error}, status_code=status, headers=headers)

    async def read(http: HttpRequest, form: type[Asked]) -> Asked | Response:
        try:
            asked = form.model_validate_json(await http.body() or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            return refuse(400, f"{where}: {said}", "invalid_request_error", where)
        if not release.answers_to(asked.model):
            return refuse(404, f"This service answers as {release.tag}.", "invalid_request_error", "model")
        return asked

    async def embed(http: HttpRequest) -> Response:
        if embeddings is None:
            said = f"{release.tag} has no embedder: it answers chat only."
            return refuse(404, said, "invalid_request_error", "model")
        wanted = await read(http, Wanted)
        if isinstance(wanted, Response):
            return wanted
        try:
            told = await embeddings.answer(wanted)
        except ValueError as error:
            return refuse(400, str(error), "invalid_request_error", "input")
        return JSONResponse({**told, "model": release.tag, "release": release.digest}, headers=headers)

    async def complete(http: HttpRequest) -> Response:
        chat = await read(http, Chat)
        if isinstance(chat, Response):
            return chat
        try:
            answer = await session().post(f"{running[0].address}/v1/chat/completions", json=release.request(chat))
            if chat.stream and answer.ok:
                return StreamingResponse(flowing(answer), media_type="text/event-stream", headers=headers)
            async with answer:
                told = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return refuse(503, f"The engine does not answer: {type(error).__name__}.", "server_error")
        if not answer.ok:
            kind = "invalid_request_error" if answer.status == 400 else "server_error"
            return refuse(400 if answer.status == 400 else 503, why(told), kind)
        return JSONResponse({**json.loads(told), "release": release.digest}, headers=headers)

    async def flowing(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in answer.content.iter_any():
                yield piece
        finally:  # a client that hangs up ends the engine's work, too
            answer.close()

    def session() -> aiohttp.ClientSession:
        if not asking:
            key = {"Authorization": f"Bearer {running[0].key}"} if running[0].key else {}
            wait = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=PATIENCE)
            # a connection of its own for each request: llama.cpp closes it after a stream, and who is quick to use it
            # again would be told that the engine does not answer
            fresh = aiohttp.TCPConnector(limit=0, force_close=True)
            asking.append(aiohttp.ClientSession(headers=key, timeout=wait, connector=fresh, trust_env=False))
        return asking[0]

    async def models(_: HttpRequest) -> Response:
        listed = {"id": release.tag, "object": "model", "owned_by": "driftline", "created": 0}
        return JSONResponse({"object": "list", "data": [listed]}, headers=headers)

    async def which(_: HttpRequest) -> Response:
        return JSONResponse(about, headers=headers)

    class Predictor:
        def __init__(self) -> None:
            self.stack = ExitStack()
            running.append(self.stack.enter_context(release.start()))
            check_golden(running[0], release.golden[:CHECKED])

        @bentoml.on_shutdown
        async def stop(self) -> None:
            for each in asking:
                await each.close()
            self.stack.close()

        @bentoml.api(route="/release")
        async def release(self) -> dict[str, str]:
            """Tell which release answers here; GET works too."""
            return about

    service = bentoml.service(
        Predictor,
        name=release.case,
        traffic={"timeout": PATIENCE},
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": "/v1/"},  # else each token of a stream is a span, which nobody collects
    )
    routes = [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/v1/embeddings", embed, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/release", which, methods=["GET"]),
    ]
    service.mount_asgi_app(Starlette(routes=routes), path="/", name="chat")
    return service


def require_server(folder: Path) -> None:
    """Look for the server of a release that is served elsewhere, before anything is started; it may take the adapter.

    Raises: Unavailable with the command that prints how to start it.
    """
    if (release := Release(folder)).elsewhere:
        with elsewhere(release.tag, as_of=release.as_of, base=release.base, adapter=folder.absolute() / "adapter"):
            pass


def why(told: bytes) -> str:
    """The reason in an engine's refusal; what stands before an engine elsewhere may refuse in words of its own."""
    try:
        return str(json.loads(told)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return told.decode(errors="replace")[:500]


def check_golden(running: Engine | Elsewhere, golden: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to serve when prompts are rendered to other tokens than when the release was sealed.

    Raises: DriftlineError.
    """
    for example in golden:
        if (found := running.tokens(example["messages"])) != example["tokens"]:
            raise DriftlineError(
                "The engine reads a golden prompt otherwise than when it was sealed.",
                where=f"example {example['example_id']}",
                found=f"{len(found)} tokens {found[:8]} ...",
                allowed=f"{len(example['tokens'])} tokens {example['tokens'][:8]} ...",
                todo="Serve it with the locked versions of its libraries, or release it again.",
            )
