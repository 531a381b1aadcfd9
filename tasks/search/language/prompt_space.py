"""The prompts near a prompt: other instructions, a schema hint, and number, choice and order of examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.language.messages import ASSISTANT, SYSTEM, USER, chat_message
from tasks.language.prompts import Prompt, PromptMessage, problems

SCHEMA_HINT = "Answer with JSON of this schema only: {{ schema }}"
COUNTS = (1, 2, 4, 8)  # of examples
PLACES = {  # of passages, in the last message
    "the passages before the question": "{{ passages }}\n\n{{ message }}",
    "the passages after the question": "{{ message }}\n\n{{ passages }}",
}
MARKS = ("{{", "{%", "{#")

Example = tuple[str, str]  # message and answer
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Variant:
    """A point of the space."""

    instruction: int = 0  # 0: the prompt's own
    schema: bool = False
    examples: tuple[int, ...] | None = None  # of the pool, in their order; None: the prompt's own
    place: str = ""  # of PLACES; empty: the prompt's own


@dataclass(frozen=True)
class PromptSpace:
    """The variants of a prompt. `instructions` are templates that replace its system message.

    `texts` are the values of `schema` and `abstain`, which the case sets.
    """

    prompt: Prompt
    texts: Mapping[str, str] = field(default_factory=dict)
    instructions: Sequence[str] = ()
    pool: Sequence[Example] = ()

    @property
    def start(self) -> Variant:
        """The prompt itself."""
        return Variant()

    def messages(self, variant: Variant) -> Messages:
        """A variant as messages."""
        _, examples, last = self._parts
        last = [chat_message(USER, PLACES[variant.place])] if variant.place else last
        system = self._system(variant)
        if variant.schema:
            system = f"{system.rstrip()}\n{SCHEMA_HINT}".lstrip()
        if variant.examples is not None:
            chosen = [self.pool[at] for at in variant.examples]
            sides = [((USER, message), (ASSISTANT, answer)) for message, answer in chosen]
            examples = [chat_message(role, literal(text)) for pair in sides for role, text in pair]
        return [*([chat_message(SYSTEM, system)] if system.strip() else []), *examples, *last]

    @property
    def valid_instructions(self) -> list[int]:
        """Numbers of the instructions, 0 the prompt's own; one whose template can't be rendered is left out."""
        return [at for at in range(len(self.instructions) + 1) if not at or self._is_valid(Variant(instruction=at))]

    @property
    def has_examples(self) -> bool:
        """Whether the prompt itself shows examples."""
        return bool(self._parts[1])

    def _system(self, variant: Variant) -> str:
        return self.instructions[variant.instruction - 1] if variant.instruction else self._parts[0]

    @property
    def _parts(self) -> tuple[str, Messages, Messages]:
        """System message, examples and last message of the prompt."""
        if not self.prompt.messages:
            return literal(self.prompt.system), [], []
        messages = [each.model_dump() for each in self.prompt.messages]
        system = messages.pop(0)["content"] if messages[0]["role"] == SYSTEM else ""
        last = [messages.pop()] if messages and messages[-1]["role"] == USER else []
        return system, messages, last

    def _is_valid(self, variant: Variant) -> bool:
        checked = [PromptMessage.model_validate(each) for each in self.messages(variant)]
        return bool(checked) and next(problems(checked, self.prompt.variables), None) is None


def literal(text: str) -> str:
    """A template that renders to this text."""
    if any(mark in text for mark in MARKS):
        return f"{{{{ {json.dumps(text.strip(), ensure_ascii=False)} }}}}"
    return text.strip()
