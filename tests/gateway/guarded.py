"""A gateway in front of a release whose answers a test writes; its rules are sealed as in a real one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
from aiohttp import web
from sqlalchemy import insert, select

from services.rollout.shares import promote, upsert_release
from services.store.database import endpoints, usage_records
from tasks.core.config import digest_of
from tasks.core.settings import Settings
from tasks.guard.config import Guardrails
from tasks.guard.sealed_files import GUARD_PATH, RULES, encode_guard, guard_files
from tests.gateway.in_process import in_process_gateway, settings_of, until


@dataclass
class ScriptedRelease:
    """A release's process: it sends the bytes that a test writes, and records what it was sent."""

    folder: Path
    pieces: list[str] = field(default_factory=lambda: ["Hello."])
    events: list[bytes] | None = None  # raw, in place of events of `pieces`
    message: dict[str, Any] = field(default_factory=dict)  # further fields of the whole answer's message
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def chat(self, http: web.Request) -> web.StreamResponse:
        request = await http.json()
        self.requests.append(request)
        usage = {"prompt_tokens": 5, "completion_tokens": len(self.pieces), "total_tokens": 5 + len(self.pieces)}
        frame = {"id": "chatcmpl-1", "created": 1, "model": request["model"]}
        if not request.get("stream"):
            message = {"role": "assistant", "content": "".join(self.pieces), **self.message}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            return web.json_response({**frame, "object": "chat.completion", "choices": choices, "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        frame["object"] = "chat.completion.chunk"
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in self.pieces)]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        events = [{**frame, "choices": [choice]} for choice in choices] + [{**frame, "choices": [], "usage": usage}]
        encoded = self.events or [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]
        for event in encoded:
            await response.write(event)
        return response

    async def embed(self, http: web.Request) -> web.Response:
        self.requests.append(await http.json())
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return web.json_response({"object": "list", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    async def predict(self, http: web.Request) -> web.Response:
        self.requests.append(await http.json())
        return web.json_response({"release": "d", "predictions": [{"example_id": "1", "prediction": 1.0}]})

    async def rules(self, _: web.Request) -> web.Response:
        return web.json_response(encode_guard(self.folder))


@dataclass
class GuardedGateway:
    """The gateway, its clients, and the release behind it."""

    gateway: Any
    http: httpx.AsyncClient
    release: ScriptedRelease
    digest: str
    settings: Settings

    @property
    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="none", base_url="http://127.0.0.1/v1", http_client=self.http)

    async def ask(self, *messages: str, **more: Any) -> Any:
        """The response to a chat with these messages of a user."""
        turns: Any = [{"role": "user", "content": message} for message in messages]
        return await self.openai.chat.completions.create(model="talker", messages=turns, **more)

    async def stream(self, message: str, **more: Any) -> tuple[str, str, str | None]:
        """Text, refusal and finish reason of a stream."""
        text, refusal, reason = "", "", None
        async for chunk in await self.ask(message, stream=True, **more):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                refusal += choice.delta.refusal or ""
                reason = choice.finish_reason or reason
        return text, refusal, reason

    def records(self) -> list[Any]:
        """The usage records, oldest first."""
        with self.gateway.store.reading() as connection:
            return [*connection.execute(select(usage_records).order_by(usage_records.c.at)).mappings()]


def seal_rules(releases: Path, case: str, kind: str, rules: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A release's folder with its rules, and its manifest."""
    written = Guardrails.model_validate(rules).model_dump_json(indent=1)
    work = releases / "unsealed"
    work.mkdir(parents=True, exist_ok=True)
    (work / RULES).write_text(written)
    sealed = {"case": case, "kind": kind, "context": 4096, "files": guard_files(work)}
    digest = digest_of(sealed)
    folder = releases / case / digest[:12]
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.rename(folder)
    return folder, {"digest": digest, "sealed": sealed}


@contextlib.asynccontextmanager
async def guarded_gateway(
    state: Path, rules: dict[str, Any], kind: str = "llm", **more: Any
) -> AsyncIterator[GuardedGateway]:
    """A gateway with one release, `talker`, whose rules are these."""
    folder, manifest = seal_rules(state / "releases", "talker", kind, rules)
    release = ScriptedRelease(folder)
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", release.chat),
            web.post("/v1/embeddings", release.embed),
            web.post("/predict", release.predict),
            web.get(GUARD_PATH, release.rules),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = settings_of(state, **more)
    try:
        async with in_process_gateway(settings) as (gateway, client):
            upsert_release(gateway.store, manifest)
            with gateway.store.changing() as connection:
                connection.execute(insert(endpoints).values(digest=manifest["digest"], address=address))
            promote(gateway.store, "talker", manifest["digest"], "for a test")
            await until(lambda: "talker" in gateway.config_cache.routes.rollouts)
            yield GuardedGateway(gateway, client, release, manifest["digest"], settings)
    finally:
        await runner.cleanup()
