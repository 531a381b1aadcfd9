"""Chat completions of a server that may send anything: read strictly, so that nonsense is an error and no answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ALLOWED = "a chat completion in OpenAI's form, with choices that have a message"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Function(_Part):
    name: str
    arguments: str


class _ToolCall(_Part):
    function: _Function


class _Message(_Part):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(_Part):
    index: int = 0
    message: _Message
    finish_reason: str | None = None


class _Details(_Part):
    cached_tokens: int | None = Field(None, ge=0)


class _Usage(_Part):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    prompt_tokens_details: _Details | None = None


class ChatCompletion(_Part):
    """A whole response."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None

    @property
    def text(self) -> str:
        message = self.choices[0].message
        return message.content or message.refusal or ""

    @property
    def finish(self) -> str:
        return self.choices[0].finish_reason or "stop"


class _Delta(_Part):
    content: str | None = None


class _DeltaChoice(_Part):
    index: int = 0
    delta: _Delta
    finish_reason: str | None = None


class ChatCompletionChunk(_Part):
    """An event of a stream."""

    choices: list[_DeltaChoice]
    usage: _Usage | None = None


def read_completion(body: bytes) -> ChatCompletion:
    """Raises: ValueError that shows what came instead."""
    try:
        return ChatCompletion.model_validate_json(body)
    except ValidationError as error:
        raise ValueError(_shown(error, body)) from error


def read_chunk(body: bytes) -> ChatCompletionChunk:
    """Raises: ValueError that shows what came instead."""
    try:
        return ChatCompletionChunk.model_validate_json(body)
    except ValidationError as error:
        raise ValueError(_shown(error, body)) from error


def estimate_usage(request: bytes, text: str) -> dict[str, int]:
    """The usage of a response that states none, by four bytes a token: what is not counted would cost nothing."""
    read, written = len(request) // 4, -(-len(text.encode()) // 4)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _shown(error: ValidationError, body: bytes) -> str:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    start = " ".join(body[:200].decode(errors="replace").split())
    return f"{where + ': ' if where else ''}{first['msg']}; it begins {start!r}"
