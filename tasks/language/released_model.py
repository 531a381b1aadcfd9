"""The release of a language model, as the service in its Bento reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tasks.core.errors import DriftlineError
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.chat_tools import NamedTool
from tasks.language.engine import Engine, start_engine
from tasks.language.open_engine import model_file
from tasks.language.prompts import released_prompt, render
from tasks.language.remote_engine import RemoteEngine, connect_upstream
from tasks.language.upstream import UPSTREAM, Upstream
from tasks.language.vllm import VllmServer, connect_vllm

KNOWLEDGE_PARTS = ("knowledge", "embedder", "answering.json")  # folders and a file of a release
OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")


class ReleasedModel:
    """The released model in a release folder."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sealed = manifest["sealed"]
        self.digest: str = manifest["digest"]
        self.case: str = sealed["case"]
        self.as_of: str = sealed["as_of"]
        self.tag = f"{self.case}:{self.digest[:12]}"
        self.folder, self.model = folder, model_file(folder)
        self.upstream = Upstream.read(self.model) if self.model.name == UPSTREAM else None
        self.context: int = sealed["context"]
        self.slots: int = sealed["serving"]["slots"]
        self.embedder = folder / "embedder" if sealed["serving"].get("embedder") else None
        files = sealed["files"] if "knowledge" in sealed else {}
        # digests of the files of the knowledge base, by name; empty: there is none
        self.knowledge_files = {name: files[name] for name in files if name.split("/")[0] in KNOWLEDGE_PARTS}
        self.on_vllm: bool = sealed["serving"].get("engine") == "vllm"
        self.base = f"base-{sealed['base']['digest'][:12]}" if self.on_vllm else ""  # its name on the vLLM server
        self.answer_tokens: int = sealed["serving"]["answer_tokens"]
        self.prompt = released_prompt(folder)
        schema = folder / "schema.json"
        self.schema = json.loads(schema.read_text(encoding="utf-8")) if schema.is_file() else None  # None: prose
        self.golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))

    def request(self, chat: ChatCompletionRequest) -> dict[str, Any]:
        """The engine's request: with the release's system prompt, schema and length as defaults."""
        body = self._with_defaults(chat)
        if self.on_vllm or chat.cache_prompt:
            del body["cache_prompt"]
        if isinstance(chat.tool_choice, NamedTool):  # llama.cpp knows no named function
            name = chat.tool_choice.function.name
            body["tools"] = [tool for tool in body["tools"] if tool["function"]["name"] == name]
            body["tool_choice"] = "required"
        # the service assembles the response of one text; llama.cpp's streams lack some logprobs
        if not (chat.stream or chat.logprobs or chat.tools):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {**body, "model": self.tag}  # the engine repeats it in its response

    def upstream_request(self, chat: ChatCompletionRequest) -> dict[str, Any]:
        """The request to the server behind the release's address, without what only llama.cpp knows, and defaults."""
        assert self.upstream
        body = self._with_defaults(chat)
        for name in ("cache_prompt", "ignore_eos", *(() if chat.stream else ("stream_options",))):
            body.pop(name, None)
        defaults = {"top_p": 1.0, "logprobs": False, "stream": False, "n": 1}
        body = {name: value for name, value in body.items() if defaults.get(name) != value}
        return self.upstream.request_body(body)

    def _with_defaults(self, chat: ChatCompletionRequest) -> dict[str, Any]:
        body = chat.model_dump(exclude_none=True, exclude={"model", "max_completion_tokens", "user"})
        if not chat.tools:  # what goes with them has no meaning without
            body = {name: value for name, value in body.items() if name not in OF_TOOLS}
        body["messages"] = render(self.prompt, body["messages"])
        body |= {k: v for k, v in self.prompt.parameters.overrides.items() if k not in chat.model_fields_set}
        body["max_tokens"] = chat.max_completion_tokens or chat.max_tokens or self.answer_tokens
        follows = self.upstream is None or self.upstream.json_schema
        if chat.response_format is None and self.schema is not None and follows and not chat.tools:
            schema = {"name": "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def start(self) -> AbstractContextManager[Engine | VllmServer]:
        """Start or connect the engine of this release."""
        if self.on_vllm:
            return connect_vllm(self.tag)
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        return start_engine(self.model, threads=threads, slots=self.slots, context=self.context, name=self.tag)

    def reach(self) -> AbstractContextManager[RemoteEngine]:
        """The client of the server behind the release's address."""
        assert self.upstream
        return connect_upstream(self.upstream, slots=self.slots)

    def is_named(self, name: str | None) -> bool:
        return name in (None, self.case, self.tag, self.digest)


def require_server(folder: Path) -> None:
    """Check the server of a release before the start; one of vLLM may load the adapter.

    Raises: Unavailable with the command that starts it, or with its address.
    """
    release = ReleasedModel(folder)
    if release.upstream:
        with release.reach() as engine:
            engine.connect()
    if release.on_vllm:
        with connect_vllm(release.tag, as_of=release.as_of, base=release.base, adapter=folder.absolute() / "adapter"):
            pass


def check_golden(engine: Engine | VllmServer, golden: Sequence[Mapping[str, Any]]) -> None:
    """Check that the engine renders golden prompts to the tokens of the sealed release.

    Raises: DriftlineError.
    """
    for example in golden:
        if (tokens := engine.tokens(example["messages"])) != example["tokens"]:
            raise DriftlineError(
                "The engine renders a golden prompt otherwise than when the release was sealed.",
                where=f"example {example['example_id']}",
                found=f"{len(tokens)} tokens {tokens[:8]} ...",
                allowed=f"{len(example['tokens'])} tokens {example['tokens'][:8]} ...",
                todo="Serve it with the locked versions of its libraries, or release it again.",
            )
