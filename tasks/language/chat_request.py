"""The request for a chat completion, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tasks.language.chat_tools import MAX_TOOLS, NamedTool, Tool, ToolCall, ToolChoice
from tasks.language.json_schema import check_schema
from tasks.language.messages import ASSISTANT, ROLES, SYSTEM

MAX_TOKENS = 2**31 - 1  # engines use 32-bit counts
MAX_SEED = 2**32 - 1  # the engine's seed has 32 bits, and -1 is a random one
MAX_STOPS = 16
MAX_CHOICES = 8
TOOL = "tool"  # role of a function's result
DEVELOPER = "developer"  # OpenAI's newer name of the system role
# fields that clients send although they are not supported, and the values that change no answer
NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "frequency_penalty": lambda value: value == 0 and not isinstance(value, bool),
    "presence_penalty": lambda value: value == 0 and not isinstance(value, bool),
    "logit_bias": lambda value: value == {},
    "functions": lambda value: value == [],
    "function_call": lambda value: value in ("none", "auto"),
    "store": lambda value: value is False,
    "metadata": lambda value: isinstance(value, dict),
    "service_tier": lambda value: value in ("auto", "default"),
    "modalities": lambda value: value == ["text"],
    "reasoning_effort": lambda value: value == "none",
    "verbosity": lambda value: value == "medium",
    "safety_identifier": lambda value: isinstance(value, str),
    "prompt_cache_key": lambda value: isinstance(value, str),
    "audio": lambda _: False,
    "prediction": lambda _: False,
    "web_search_options": lambda _: False,
}
NEUTRAL_IN_MESSAGE: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "annotations": lambda value: value == [],
    "function_call": lambda _: False,
    "refusal": lambda _: False,
    "audio": lambda _: False,
}


def _text(value: Any) -> Any:
    """A text, or the joined texts of its parts."""
    if not isinstance(value, list):
        return value
    for i, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ValueError(f'part {i} is {kind!r}; this model only reads {{"type": "text", "text": ...}}')
        if others := set(part) - {"type", "text"}:
            raise ValueError(f"part {i} has {', '.join(sorted(others))}, which is not known")
    return "".join(part["text"] for part in value)


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, list) and any(stop == "" for stop in stops):
        raise ValueError("an empty text would stop every answer at once; leave it out")
    return stops


class OpenAIRequest(BaseModel):
    """A JSON object whose optional fields may be null. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None or name not in cls.model_fields}


class Message(OpenAIRequest):
    role: Literal[(*ROLES, TOOL)]  # type: ignore[valid-type]
    content: Annotated[str, BeforeValidator(_text)] = ""
    name: Any = Field(None, exclude=True, description="Accepted, but the model does not see it.")
    tool_calls: list[ToolCall] | None = Field(None, description="Calls that the model made in this turn.")
    tool_call_id: str | None = Field(None, description="The call that a message of the role tool answers.")
    annotations: Any = Field(None, exclude=True)
    function_call: Any = Field(None, exclude=True)
    refusal: Any = Field(None, exclude=True)
    audio: Any = Field(None, exclude=True)

    @field_validator("tool_calls")
    @classmethod
    def _none_is_no_call(cls, calls: list[ToolCall]) -> list[ToolCall] | None:
        return calls or None

    @field_validator("role", mode="before")
    @classmethod
    def _developer_is_system(cls, role: Any) -> Any:
        return SYSTEM if role == DEVELOPER else role

    @field_validator(*NEUTRAL_IN_MESSAGE)
    @classmethod
    def _changes_nothing(cls, value: Any, info: ValidationInfo) -> None:
        _require_neutral(NEUTRAL_IN_MESSAGE, value, info)

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.role != ASSISTANT and "content" not in self.model_fields_set:
            raise ValueError("content is missing")
        if (self.role == TOOL) != (self.tool_call_id is not None):
            raise ValueError("tool_call_id belongs to messages of the role tool, and only to these")
        if self.tool_calls and self.role != ASSISTANT:
            raise ValueError(f"tool_calls belong to messages of the role {ASSISTANT}")
        return self


class StreamOptions(OpenAIRequest):
    include_usage: bool = Field(False, description="Send the usage before the end of the stream.")
    include_obfuscation: Literal[False] = Field(False, exclude=True)


class ChatCompletionRequest(OpenAIRequest):
    """A request in OpenAI's form. An unsupported field that would change the answer is refused."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=-1, le=MAX_SEED)
    stop: Annotated[list[str] | None, BeforeValidator(_stops)] = Field(
        None, max_length=MAX_STOPS, description="One text or several; none may be empty."
    )
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = Field(
        None, description='Default: JSON by the release\'s schema; {"type": "text"}: free text.'
    )
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    ignore_eos: bool = Field(False, description="Continue until max_tokens; for load tests.")
    cache_prompt: bool = Field(True, description="False: do not reuse the cached prompt. Only for llama.cpp.")
    include_passages: bool = Field(
        False, exclude=True, description="Also return the passages, of a case with a knowledge base."
    )
    user: str | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES, description="Number of answers.")
    frequency_penalty: Any = Field(None, description="Must be 0 or omitted.")
    presence_penalty: Any = Field(None, description="Must be 0 or omitted.")
    logit_bias: Any = Field(None, description="Must be empty or omitted.")
    tools: list[Tool] | None = Field(
        None,
        max_length=MAX_TOOLS,
        description="Functions that the model may call, if its chat template or its server can; the release's schema "
        "then does not apply.",
    )
    functions: Any = Field(None, description="Must be empty or omitted.")
    tool_choice: ToolChoice | None = Field(
        None, description="none, auto, required, or the one function to call. The last two need tools."
    )
    function_call: Any = Field(None, description="Must be none, auto or omitted.")
    parallel_tool_calls: bool | None = Field(None, description="With tools: whether several calls may come at once.")
    store: Any = Field(None, description="Must be false or omitted.")
    metadata: Any = Field(None, description="Accepted, but not stored.")
    service_tier: Any = Field(None, description="Must be auto, default or omitted.")
    modalities: Any = Field(None, description='Must be ["text"] or omitted.')
    reasoning_effort: Any = Field(None, description="Must be none or omitted.")
    verbosity: Any = Field(None, description="Must be medium or omitted.")
    safety_identifier: Any = Field(None, description="Accepted, but not stored.")
    prompt_cache_key: Any = Field(None, description="Accepted, but has no effect.")
    audio: Any = Field(None, description="Must be null or omitted.")
    prediction: Any = Field(None, description="Must be null or omitted.")
    web_search_options: Any = Field(None, description="Must be null or omitted.")

    @field_validator(*NEUTRAL)
    @classmethod
    def _changes_nothing(cls, value: Any, info: ValidationInfo) -> None:
        _require_neutral(NEUTRAL, value, info)

    @property
    def uses_tools(self) -> str:
        """The field by which this conversation has tools; empty when it has none."""
        if self.tools:
            return "tools"
        return "messages" if any(each.tool_calls or each.role == TOOL for each in self.messages) else ""

    @field_validator("tool_choice")
    @classmethod
    def _names_a_tool(cls, choice: ToolChoice, info: ValidationInfo) -> ToolChoice:
        names = [tool.function.name for tool in info.data.get("tools") or ()]
        if choice == "required" and not names:
            raise ValueError("required needs tools")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise ValueError(f"tools has no function {choice.function.name}")
        return choice

    @field_validator("top_logprobs")
    @classmethod
    def _belongs_to_logprobs(cls, count: int, info: ValidationInfo) -> int:
        if count and not info.data.get("logprobs"):
            raise ValueError("needs logprobs: true")
        return count

    @field_validator("response_format")
    @classmethod
    def _can_be_enforced(cls, form: dict[str, Any]) -> dict[str, Any]:
        kind, wrapped = form.get("type"), form.get("json_schema")
        if kind not in ("text", "json_object", "json_schema"):
            raise ValueError('its type must be "text", "json_object" or "json_schema"')
        if others := set(form) - ({"type", "json_schema"} if kind == "json_schema" else {"type"}):
            raise ValueError(f"{', '.join(sorted(others))} is not allowed with the type {kind}")
        if kind != "json_schema":
            return form
        if not isinstance(wrapped, dict) or "schema" not in wrapped:
            raise ValueError("json_schema must be an object with a schema")
        if others := set(wrapped) - {"name", "description", "schema", "strict"}:
            raise ValueError(f"json_schema.{', '.join(sorted(others))} is not known")
        check_schema(wrapped["schema"])
        return form

    @model_validator(mode="after")
    def _can_go_on(self) -> ChatCompletionRequest:
        if self.ignore_eos and (self.response_format or {}).get("type") != "text":
            raise ValueError('ignore_eos needs the response_format {"type": "text"}: JSON by a schema ends by itself')
        return self


def _require_neutral(neutral: Mapping[str, Callable[[Any], bool]], value: Any, info: ValidationInfo) -> None:
    """Raises: ValueError when an unsupported field has a value that would change the answer."""
    if not neutral[info.field_name or ""](value):
        raise ValueError(f"{str(value)[:100]} is not supported by this model; omit {info.field_name}")
