"""Prompts: what is put before each conversation, a system prompt or messages with Jinja variables; and decoding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue, model_validator

from tasks.core.config import Section, Text
from tasks.language.messages import ASSISTANT, SYSTEM, USER, Messages, Role, chat_message
from tasks.language.passages import split_passages
from tasks.language.prompt_tests import PromptTests

if TYPE_CHECKING:
    from jinja2 import Template

OWN_SYSTEM = (SYSTEM, "developer")  # roles of a client's own system prompt
VARIABLES = ("message", "passages", "schema", "abstain")  # that every template may use
PROMPT, SYSTEM_TEXT = "prompt.json", "system.txt"  # in a release's folder; earlier releases have only a system prompt
MAX_RENDERED = 1_000_000  # characters of a rendered message


class PromptMessage(Section):
    """One message of a prompt."""

    role: Role = Field(description="Role of the message.")
    content: str = Field(
        min_length=1,
        description="Text with Jinja variables: message, passages, schema, abstain, and those in `variables`.",
    )


class Decoding(Section):
    """How answers are decoded where a request does not say."""

    temperature: float = Field(0.0, ge=0, le=2, description="0: the likeliest token; above: sampled.")
    max_tokens: int | None = Field(
        None, ge=1, le=32_768, description="Maximum tokens of an answer; empty: serve.answer_tokens."
    )
    stop: tuple[str, ...] = Field((), max_length=16, description="Texts at which an answer ends.")

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Decoding:
        if "" in self.stop:
            raise ValueError("an empty stop would end every answer at once")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields of a request that differ from their defaults; `max_tokens` apart."""
        fields = {"temperature": self.temperature, "stop": list(self.stop)}
        return {name: value for name, value in fields.items() if value}


GREEDY = Decoding()


class Prompt(Section):
    """The prompt of the served model and that of the baseline; or a file of prompts/ with messages."""

    name: str = Field("", exclude=True, pattern=r"^[a-z0-9_-]{0,60}$", description="Name of its file; set by it.")
    system: Text = Field("", description="System prompt of the served model. Required without `messages`.")
    messages: tuple[PromptMessage, ...] = Field(
        (),
        description="In place of `system`: the messages before a conversation. A system message may come first, then "
        "examples of both sides in turn. A last one of the user stands for the user's last message, and contains "
        "{{ message }}.",
    )
    variables: dict[str, JsonValue] = Field({}, description="Values for the variables of `messages`.")
    parameters: Decoding = GREEDY
    baseline: Text = Field(
        "",
        description="System prompt of the untuned base that a tuned model is compared with; {schema} is replaced by "
        "the answer's schema. Required with `train`; without it, no baseline is evaluated.",
    )
    few_shot: int = Field(5, ge=1, le=32, description="Training pairs in the prompt of the few-shot baseline.")
    notes: str = Field("", exclude=True, description="What it is for, and why it is as it is. Changes no digest.")
    tests: PromptTests | None = Field(
        None, exclude=True, description="Test set; of a file prompts/NAME.yaml that is prompts/NAME.tests.yaml."
    )

    @model_validator(mode="after")
    def _can_be_rendered(self) -> Prompt:
        if bool(self.system.strip()) == bool(self.messages):
            raise ValueError("give system, or messages in its place, one of them")
        if fixed := {"message", "passages"} & self.variables.keys():
            raise ValueError(f"variables.{min(fixed)} is set by each request; choose another name")
        if problem := next(problems(self.messages, self.variables), None):
            raise ValueError(problem.sentence)
        return self

    @property
    def label(self) -> str:
        """Its name and the beginning of its digest."""
        return f"{self.name or 'inline'}@{self.digest[:12]}"

    @property
    def places_passages(self) -> bool:
        """Whether it states where the passages of a knowledge base stand."""
        return any("passages" in _names(each.content) for each in self.messages)

    def bound(self, **values: JsonValue) -> Prompt:
        """It with values for those variables that its messages use and it does not set itself."""
        used = frozenset().union(*(_names(each.content) for each in self.messages))
        more = {name: value for name, value in values.items() if name in used - set(self.variables)}
        return self.model_copy(update={"variables": {**self.variables, **more}}) if more else self


NO_PROMPT = Prompt.model_construct()  # of a model that is asked as it is; a case can't have it


class Problem(Section):
    """What is wrong with a message's template."""

    message: int
    line: int  # of the template, from 1
    what: str

    @property
    def sentence(self) -> str:
        return f"messages.{self.message}.content, line {self.line}: {self.what}"


def problems(messages: Sequence[PromptMessage], variables: Mapping[str, JsonValue]) -> Iterator[Problem]:
    """What keeps messages from being rendered: the order of their roles, unknown variables, errors of templates."""
    roles = [each.role for each in messages]
    first = 1 if roles[:1] == [SYSTEM] else 0
    for at, role in enumerate(roles[first:]):
        if role != (USER, ASSISTANT)[at % 2]:
            order = "a system message may come first, then both sides take turns, the user first"
            yield Problem(message=first + at, line=1, what=f"the role {role} is out of order: {order}")
            return
    known = {**dict.fromkeys(VARIABLES, "text"), **variables}
    for at, each in enumerate(messages):
        if found := _template_problem(each.content, known):
            yield Problem(message=at, line=found[0], what=found[1])
            return
    last = len(roles) - 1 if roles[-1:] == [USER] else None
    for at, each in enumerate(messages):
        if at != last and "passages" in _names(each.content):
            what = "passages stand in the last message, of the user: documents are data, and no part of the instruction"
            yield Problem(message=at, line=1, what=what)
            return
    if last is not None and "message" not in _names(messages[last].content):
        yield Problem(message=len(roles) - 1, line=1, what="the last message of the user must contain {{ message }}")


def render(prompt: Prompt, turns: Messages) -> list[dict[str, str]]:
    """The conversation that the model gets, in evaluation and in serving alike: the prompt's messages, then `turns`.

    turns: the request's messages, the passages of a knowledge base before the last one of the user, unless the prompt
    places them; turns that begin with a system message replace the prompt.
    """
    turns = list(turns)
    if turns and turns[0]["role"] in OWN_SYSTEM:
        return turns
    if not prompt.messages:
        return [*([chat_message(SYSTEM, prompt.system)] if prompt.system else []), *turns]
    last = next((at for at in reversed(range(len(turns))) if turns[at]["role"] == USER), None)
    message, passages = "" if last is None else turns[last]["content"], ""
    if prompt.places_passages:
        passages, message = split_passages(message)
    values = {**dict.fromkeys(VARIABLES, ""), **prompt.variables, "message": message, "passages": passages}
    texts = [chat_message(each.role, _template(each.content).render(values)) for each in prompt.messages]
    if prompt.messages[-1].role == USER:
        wrapped = texts.pop()
        if last is not None:
            turns[last] = {**turns[last], **wrapped}
    return [*texts, *turns]


def released_prompt(folder: Path) -> Prompt:
    """The sealed prompt in a release's folder."""
    if (file := folder / PROMPT).is_file():
        return Prompt.model_validate_json(file.read_bytes())
    return Prompt(system=(folder / SYSTEM_TEXT).read_text(encoding="utf-8"))


def sealed_text(prompt: Prompt) -> str:
    """The prompt as a release seals it."""
    return json.dumps({**prompt.model_dump(mode="json"), "name": prompt.name}, indent=1, ensure_ascii=False)


@cache
def _template(text: str) -> Template:
    """Raises: TemplateSyntaxError."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    ).from_string(text)


@cache
def _names(text: str) -> frozenset[str]:
    """The variables that a template uses."""
    from jinja2 import Environment, meta

    return frozenset(meta.find_undeclared_variables(Environment().parse(text)))  # chat, not HTML


def _template_problem(text: str, known: Mapping[str, Any]) -> tuple[int, str] | None:
    """The line and the reason why a template can't be rendered."""
    import difflib

    from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes

    try:
        tree = Environment().parse(text)
    except TemplateSyntaxError as error:
        return error.lineno, str(error.message)
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        return node.lineno, f"{type(node).__name__.lower()} is not available: a prompt is one file"
    names = _names(text)
    for name in tree.find_all(nodes.Name):
        if name.name in names and name.name not in known:
            near = difflib.get_close_matches(name.name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return name.lineno, f"unknown variable {name.name!r}; there are: {', '.join(sorted(known))}{hint}"
    try:
        rendered = _template(text).render(known)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        return _line_of(error), f"it can't be rendered: {error}"
    if len(rendered) > MAX_RENDERED:
        return 1, f"it renders to {len(rendered):,} characters; at most {MAX_RENDERED:,}"
    return None


def _line_of(error: BaseException) -> int:
    """The template's line in a traceback, which Jinja rewrites."""
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (lines[-1] if lines else None) or 1
