"""The guardrails section of a case: rules for each stage that a text passes, and what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from tasks.core.config import READ_STRUCTURE, Section

Stage = Literal["input", "passages", "output", "tools"]
Action = Literal["allow", "redact", "refuse", "flag", "route"]
Mode = Literal["enforce", "shadow"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ACTIONS: tuple[Action, ...] = get_args(Action)
REFUSAL = "This request or answer is not allowed by the rules of this service."
Kind = Literal["email", "iban", "card", "phone"]
Words = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], READ_STRUCTURE]


class RuleBase(Section):
    """The keys of every rule."""

    name: str = Field("", pattern=r"^[a-z0-9_]{0,40}$", description="Name in counts and reports. Default: the check.")
    action: Action = Field(
        description="refuse; redact what is found; flag: only count; route to another release; "
        "allow: later rules of the stage ignore what this one finds."
    )
    mode: Mode = Field("enforce", description="shadow: counted, without effect.")
    message: str = Field("", max_length=500, description="Text of the refusal. Default: a general one.")
    to: str = Field("", max_length=60, description="For action route: the case or release that answers.")
    on_error: Literal["refuse", "allow"] = Field(
        "refuse", description="When the rule fails or overruns time_ms; allow: passes, and counts as unchecked."
    )
    time_ms: float = Field(250, gt=0, le=60_000, description="Milliseconds that the rule may take.")
    catch_rate: float | None = Field(
        None, ge=0, le=1, description="Least share of known-bad inputs that the rule finds; a gate of the release."
    )
    false_alarm_rate: float | None = Field(
        None, ge=0, le=1, description="Largest share of known-good inputs that the rule finds; a gate of the release."
    )

    @property
    def label(self) -> str:
        """The name in counts and reports."""
        return self.name or str(getattr(self, "check", ""))

    @model_validator(mode="after")
    def _check_route(self) -> RuleBase:
        if (self.action == "route") != bool(self.to):
            raise ValueError("action route and `to`, the case or release that answers, belong together")
        if self.action in ("redact", "allow") and not self.has_spans:
            raise ValueError(f"action {self.action} needs a rule that finds places in a text; this one judges it whole")
        return self

    @property
    def has_spans(self) -> bool:
        """Whether it finds places in a text; else it judges the text as a whole."""
        return False


class SpanRule(RuleBase):
    """A rule that finds places in a text, each by what stands near it."""

    @property
    def has_spans(self) -> bool:
        return True


class PersonalDataRule(SpanRule):
    """E-mail addresses, telephone, card and account numbers, by form and check digits."""

    check: Literal["personal_data"] = Field(description="Personal data.")
    kinds: tuple[Kind, ...] = Field(("email", "iban", "card", "phone"), min_length=1, description="What is searched.")
    restore: bool = Field(
        False, description="With action redact on input: numbered placeholders, replaced by the values in the answer."
    )


class SecretsRule(SpanRule):
    """Keys, tokens, passwords and private keys."""

    check: Literal["secrets"] = Field(description="Secrets.")


class WordsRule(SpanRule):
    """Words and names from a list, however they are disguised."""

    check: Literal["words"] = Field(description="Words by list.")
    words: Words = Field(
        min_length=1, description="Words or phrases, or the name of a .yaml or .json file with a list."
    )
    parts: bool = Field(False, description="Whether they also count within longer words.")


class InjectionRule(RuleBase):
    """Instructions that try to change what the model was told to do, by heuristics on the normalised text."""

    check: Literal["injection"] = Field(description="Prompt injection.")


class ClassifierRule(RuleBase):
    """A classifier of texts, trained by `driftline guard train`."""

    check: Literal["classifier"] = Field(description="A trained classifier.")
    model: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$", description="Name of the trained classifier.")
    threshold: float | None = Field(None, ge=0, le=1, description="Least score that counts. Default: the model's own.")


Rule = Annotated[
    PersonalDataRule | SecretsRule | WordsRule | InjectionRule | ClassifierRule, Field(discriminator="check")
]


class Guardrails(Section):
    """Rules by the stage of a text; all rules of a stage apply, and the strictest action wins."""

    input: tuple[Rule, ...] = Field((), description="Rules for requests: messages, texts to embed, queries, rows.")
    passages: tuple[Rule, ...] = Field((), description="Rules for retrieved passages; refuse drops the passage.")
    output: tuple[Rule, ...] = Field((), description="Rules for answers, whole or streamed.")
    tools: tuple[Rule, ...] = Field((), description="Rules for the arguments and results of tools.")

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Guardrails:
        for stage, rules in self.stages():
            counts = Counter(rule.label for rule in rules)
            if twice := [label for label, count in counts.items() if count > 1]:
                raise ValueError(f"{stage}: two rules are called {twice[0]}; set `name` in one of them")
        return self

    def stages(self) -> Iterator[tuple[Stage, tuple[Rule, ...]]]:
        for stage in STAGES:
            yield stage, self.rules(stage)

    def rules(self, stage: Stage) -> tuple[Rule, ...]:
        """The rules of a stage."""
        rules: tuple[Rule, ...] = getattr(self, stage)
        return rules

    @property
    def is_empty(self) -> bool:
        return not any(rules for _, rules in self.stages())

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of the trained classifiers that its rules use."""
        named = (rule.model for _, rules in self.stages() for rule in rules if isinstance(rule, ClassifierRule))
        return tuple(sorted(set(named)))


def with_floor(values: Any, floor: Mapping[str, Any]) -> Any:
    """A case's guardrails behind the platform's rules, which a case can add to and not remove."""
    own = values if isinstance(values, Mapping) else {}
    if not floor or (values is not None and not isinstance(values, Mapping)):
        return values
    return {**own, **{stage: [*rules, *_listed(own.get(stage))] for stage, rules in floor.items()}}


def _listed(rules: Any) -> Sequence[Any]:
    return rules if isinstance(rules, list | tuple) else ()
