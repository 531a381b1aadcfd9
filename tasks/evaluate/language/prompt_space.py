"""The prompts near a prompt: other instructions, a schema hint, and number, choice and order of examples."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from tasks.core.config import digest_of
from tasks.language.messages import ASSISTANT, SYSTEM, USER, chat_message
from tasks.language.prompts import Prompt, PromptMessage, problems

SCHEMA_HINT = "Answer with JSON of this schema only: {{ schema }}"
COUNTS = (0, 1, 2, 4, 8)  # of examples
CHOICES = 3  # other choices of equally many examples that are tried beside a prompt
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
    has_passages: bool = False  # of a knowledge base
    seed: int = 0

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

    def as_prompt(self, messages: Messages, name: str = "", notes: str = "") -> Prompt:
        """The prompt with other messages, and all else as it is."""
        values = self.prompt.model_dump(exclude={"system", "messages", "tests", "name", "notes"})
        changed = {"name": name, "notes": notes, "messages": messages}
        return Prompt.model_validate({**values, "tests": self.prompt.tests, **changed})

    def neighbours(self, variant: Variant) -> list[tuple[str, Variant]]:
        """Variants that differ in one respect, with what is changed; each kind of change comes in turn."""
        chance = random.Random(digest_of([self.seed, repr(variant)]))
        kinds = [
            list(self._other_examples(variant, chance)),
            list(self._other_instructions(variant)),
            list(self._other_order(variant, chance)),
            [(name, replace(variant, place=name)) for name in PLACES if self.has_passages and name != variant.place],
        ]
        turns = zip_longest(*kinds)
        found = [each for turn in turns for each in turn if each]
        shown = {self._key(variant)}
        unique = []
        for change, each in found:
            messages = self.messages(each)
            if self._key(each) not in shown and messages and self._is_valid(messages):
                shown.add(self._key(each))
                unique.append((change, each))
        return unique

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

    def _key(self, variant: Variant) -> str:
        return json.dumps(self.messages(variant))

    def _is_valid(self, messages: Messages) -> bool:
        checked = [PromptMessage.model_validate(each) for each in messages]
        return next(problems(checked, self.prompt.variables), None) is None

    def _other_instructions(self, variant: Variant) -> Iterator[tuple[str, Variant]]:
        if self.texts.get("schema") and "schema" not in self._system(variant):
            change = "without the schema" if variant.schema else "with the schema"
            yield change, replace(variant, schema=not variant.schema)
        for at in range(len(self.instructions) + 1):
            if at != variant.instruction:
                yield self._title(at), replace(variant, instruction=at)

    def _title(self, instruction: int) -> str:
        if not instruction:
            return "its own instruction"
        text = " ".join(self.instructions[instruction - 1].removeprefix(self._parts[0]).split())
        return f"instruction: {text if len(text) <= 60 else f'{text[:56]} ...'}"

    def _other_examples(self, variant: Variant, chance: random.Random) -> Iterator[tuple[str, Variant]]:
        current = variant.examples or ()
        for count in COUNTS:
            if count != len(current) and count <= len(self.pool):
                rest = [at for at in range(len(self.pool)) if at not in current]
                more = chance.sample(rest, max(0, count - len(current)))
                yield _examples(count), replace(variant, examples=(*current[:count], *more))
        for _ in range(CHOICES if current else 0):
            other = tuple(chance.sample(range(len(self.pool)), len(current)))
            yield f"other {_examples(len(other))}", replace(variant, examples=other)

    def _other_order(self, variant: Variant, chance: random.Random) -> Iterator[tuple[str, Variant]]:
        current = variant.examples or ()
        if len(current) > 1:
            yield "the examples in reverse", replace(variant, examples=current[::-1])
            yield "the examples shuffled", replace(variant, examples=tuple(chance.sample(current, len(current))))


def registry_name(case: str) -> str:
    """The prompts of a case's searches in MLflow's registry; they are no releases."""
    return f"{case}-prompt-search"


def literal(text: str) -> str:
    """A template that renders to this text."""
    if any(mark in text for mark in MARKS):
        return f"{{{{ {json.dumps(text.strip(), ensure_ascii=False)} }}}}"
    return text.strip()


def _examples(count: int) -> str:
    return "no example" if not count else f"{count} example{'s' if count > 1 else ''}"
