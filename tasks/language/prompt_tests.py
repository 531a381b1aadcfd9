"""The test set of a prompt, and the checks that an answer passes or fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.config import Section
from tasks.language.answer_scoring import JsonScorer, read_json
from tasks.language.text_scoring import states


class PromptTest(Section):
    """One input, and what is required of each answer to it."""

    message: str = Field(min_length=1, description="What the user asks.")
    required: tuple[str, ...] = Field(
        (), description="Facts that the answer must state: texts, or /regular expressions/."
    )
    forbidden: tuple[str, ...] = Field((), description="What it must not state: texts, or /regular expressions/.")
    format: Literal["json", "text"] | None = Field(
        None, description="json: it must be JSON by the case's schema; text: it must not be JSON."
    )
    max_words: int | None = Field(None, ge=1, description="Most words of the answer.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of the answer.")
    max_cost: float | None = Field(None, ge=0, description="Highest price of the answer, by the case's `price`.")

    @field_validator("required", "forbidden")
    @classmethod
    def _patterns_compile(cls, facts: tuple[str, ...]) -> tuple[str, ...]:
        for fact in facts:
            if len(fact) > 2 and fact.startswith("/") and fact.endswith("/"):
                try:
                    re.compile(fact[1:-1])
                except re.error as error:
                    raise ValueError(f"{fact} is not a regular expression: {error}") from error
        return facts

    @model_validator(mode="after")
    def _checks_something(self) -> PromptTest:
        if not self.checks:
            raise ValueError("checks nothing: give required, forbidden, format, max_words, max_tokens or max_cost")
        return self

    @property
    def checks(self) -> int:
        """How many checks an answer goes through."""
        bounds = (self.format, self.max_words, self.max_tokens, self.max_cost)
        return len(self.required) + len(self.forbidden) + sum(bound is not None for bound in bounds)


class PromptTests(Section):
    """The tests of a prompt, and when their result lets a prompt pass."""

    pass_rate: float = Field(0.9, ge=0, le=1, description="Lowest share of checks that must pass.")
    margin: float = Field(
        0.1, ge=0, le=1, description="How much lower than the champion's the pass rate may be and still not be worse."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the comparison with the champion.")
    repeats: int = Field(
        3, ge=1, le=50, description="Answers to each test where decoding samples; at temperature 0, one."
    )
    tests: tuple[PromptTest, ...] = Field(min_length=1, description="The tests.")


class AnswerChecker:
    """Checks answers to the tests of one case; without a schema, `format: json` is any JSON."""

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        self._scorer = None if schema is None else JsonScorer(schema)

    def failed(self, test: PromptTest, text: str, tokens: int, cost: float) -> list[str]:
        """What an answer of so many tokens, at this price, fails."""
        words = len(text.split())
        failed = [f"does not state {fact}" for fact in test.required if not states(text, fact)]
        failed += [f"states {fact}" for fact in test.forbidden if states(text, fact)]
        if test.format and (test.format == "json") != self._is_json(text):
            failed.append("is not JSON by the schema" if test.format == "json" else "is JSON")
        if test.max_words is not None and words > test.max_words:
            failed.append(f"{words} words; at most {test.max_words}")
        if test.max_tokens is not None and tokens > test.max_tokens:
            failed.append(f"{tokens} tokens; at most {test.max_tokens}")
        if test.max_cost is not None and cost > test.max_cost:
            failed.append(f"costs {cost:.3g}; at most {test.max_cost:g}")
        return failed

    def _is_json(self, text: str) -> bool:
        if self._scorer is None:
            return read_json(text)[0]
        return bool(self._scorer.score(text, "{}", "").schema_valid)
