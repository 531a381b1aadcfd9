"""Functions that a client offers to a model, and the model's calls of them, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TOOLS = 128
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Function(_Part):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Part):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


class CalledFunction(_Part):
    name: Name
    arguments: str


class ToolCall(_Part):
    """A call that the model made, in a later turn of the conversation."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class NamedFunction(_Part):
    name: Name


class NamedTool(_Part):
    """The one function that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool
