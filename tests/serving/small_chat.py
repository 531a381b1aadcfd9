"""A small language release and its service's application, in this process: it starts in a second."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn

from services.serving.chat_app import ChatApp
from tasks.core.config import digest_of
from tasks.data.results import GGUF
from tasks.language.released_model import ReleasedModel
from tasks.release.seal import release_folder
from tests.language_case import tiny_opened
from tests.waiting import wait_for

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
ENGINE = "tasks.language.engine_server"
FREE = {"type": "text"}
MANY = httpx.Limits(max_connections=400)


def chat_release(folder: Path, *, slots: int = 2, context: int = 512) -> Path:
    """The files of a release that answers {"city": "Paris"} or "Oslo", by a random model."""
    serving = {"slots": slots, "answer_tokens": 24}
    sealed = {"case": "small", "kind": "llm", "as_of": "2013-04-01T00:00:00+00:00", "context": context}
    sealed |= {"serving": serving, "files": {}}
    release = release_folder(folder, "small", digest_of(sealed))
    release.mkdir(parents=True)
    shutil.copyfile(tiny_opened(folder, context).folder / GGUF, release / "model.gguf")
    manifest = {"digest": digest_of(sealed), "sealed": sealed, "recorded": {"run_id": "none"}}
    for name, value in (("manifest", manifest), ("schema", SCHEMA), ("golden", [])):
        (release / f"{name}.json").write_text(json.dumps(value))
    (release / "system.txt").write_text("Name a city.")
    return release


@contextmanager
def chat_service(release: Path, **options: Any) -> Iterator[tuple[ChatApp, httpx.Client]]:
    """The application, and a client of it."""
    app = ChatApp(ReleasedModel(release), **options)
    app.open()
    server = uvicorn.Server(uvicorn.Config(app.starlette(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False, limits=MANY) as client:
            yield app, client
    finally:
        server.should_exit = True
        thread.join(10)
        if app.uses_engine:
            app.watch.close()


def body(text: str = "Where?", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def endless(**more: Any) -> dict[str, Any]:
    """A request whose answer fills the context."""
    return body(response_format=FREE, ignore_eos=True, max_tokens=100_000, **more)


def ask(client: httpx.Client, request: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=request)


def engine_process(parent: int | None = None) -> psutil.Process:
    """The newest engine that this process, or another, has started."""
    children = psutil.Process(parent).children(recursive=True)
    engines = [child for child in children if child.status() != psutil.STATUS_ZOMBIE and ENGINE in child.cmdline()]
    return max(engines, key=lambda child: child.create_time())


def seconds_of(client: httpx.Client, request: Any) -> float:
    begun = time.monotonic()
    assert ask(client, request).status_code == 200
    return time.monotonic() - begun
