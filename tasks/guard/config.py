"""The guardrails section of a case: rules for each stage that a text passes, and what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from tasks.core.config import READ_STRUCTURE, Section

Stage = Literal["input", "passages", "output", "tools", "tables"]
Action = Literal["allow", "redact", "refuse", "flag", "route"]
Mode = Literal["enforce", "shadow"]
STAGES: tuple[Stage, ...] = ("input", "passages", "output", "tools")  # of texts
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
    time_ms: float = Field(1000, gt=0, le=60_000, description="Milliseconds that the rule may take.")
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

    @property
    def reads_passages(self) -> bool:
        """Whether it compares an answer with its passages."""
        return getattr(self, "check", "") in ("groundedness", "citation") or bool(getattr(self, "from_passages", False))

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

    @property
    def is_local(self) -> bool:
        """Whether it can judge a part of a text that still arrives."""
        return self.has_spans


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


class CharactersRule(SpanRule):
    """Characters that hide or disguise text."""

    check: Literal["characters"] = Field(description="Hiding characters.")
    kinds: tuple[Literal["invisible", "confusable"], ...] = Field(
        ("invisible", "confusable"), min_length=1, description="confusable: letters of another script within a word."
    )


class EncodedRule(SpanRule):
    """Text that is written as base64 or hexadecimal digits; injection and words are also searched in what it says."""

    check: Literal["encoded"] = Field(description="Encoded text.")


class LengthRule(SpanRule):
    """A text that is too long; of a stream, from where it becomes so. `redact` cuts it off."""

    check: Literal["length"] = Field(description="Length.")
    max_characters: int = Field(ge=1, description="Characters that are allowed.")


class RepetitionRule(RuleBase):
    """A text that repeats itself."""

    check: Literal["repetition"] = Field(description="Repetition.")
    max_run: int = Field(200, ge=2, description="Times that one character may stand in a row.")
    max_share: float = Field(0.6, gt=0, lt=1, description="Share of sequences of five words that may be repeated.")


class LanguageRule(RuleBase):
    """A text in another language than the allowed ones. Of a few words the language is not clear: they pass."""

    check: Literal["language"] = Field(description="Language.")
    languages: tuple[
        Literal["en", "de", "es", "fr", "it", "pt", "nl", "pl", "ru", "el", "he", "ar", "hi", "th", "ja", "ko", "zh"],
        ...,
    ] = Field(min_length=1, description="Codes of the allowed languages.")


class TopicsRule(RuleBase):
    """What a text is about, by its nearest examples; the release's embedder compares them."""

    check: Literal["topics"] = Field(description="Topics.")
    topics: dict[str, tuple[str, ...]] = Field(min_length=1, description="Examples of each topic, by its name.")
    deny: bool = Field(True, description="true: these topics are found; false: every other one is.")
    threshold: float = Field(0.5, ge=-1, le=1, description="Least similarity to an example that counts as its topic.")

    @model_validator(mode="after")
    def _have_examples(self) -> TopicsRule:
        if empty := [name for name, texts in self.topics.items() if not texts]:
            raise ValueError(f"topics: {empty[0]} has no example")
        return self


class LinksRule(SpanRule):
    """Links to other hosts than the allowed ones."""

    check: Literal["links"] = Field(description="Links.")
    allowed: tuple[str, ...] = Field((), description="Hosts, with their subdomains.")
    from_passages: bool = Field(False, description="Whether links that stand in the passages are allowed, too.")

    @property
    def is_local(self) -> bool:
        return not self.from_passages


class CodeRule(SpanRule):
    """Fenced blocks of code."""

    check: Literal["code"] = Field(description="Code.")
    from_passages: bool = Field(False, description="Whether code whose lines stand in the passages is allowed.")

    @property
    def is_local(self) -> bool:
        return not self.from_passages


class SchemaRule(RuleBase):
    """An answer that is not JSON of a schema."""

    check: Literal["schema"] = Field(description="JSON of a schema.")
    json_schema: Annotated[dict[str, Any], READ_STRUCTURE] = Field(description="Schema, or its file in the case.")


class GroundednessRule(RuleBase):
    """Numbers, names, codes and commands of an answer that stand in no passage."""

    check: Literal["groundedness"] = Field(description="Groundedness.")


class CitationRule(RuleBase):
    """An answer from passages that cites none."""

    check: Literal["citation"] = Field(description="Citations.")


class ConversationRule(RuleBase):
    """A conversation, as the messages of one request, beyond a limit."""

    check: Literal["conversation"] = Field(description="Limits of a conversation.")
    max_turns: int | None = Field(None, ge=1, description="Messages of the user.")
    max_characters: int | None = Field(None, ge=1, description="Characters of all messages.")
    max_tool_calls: int | None = Field(None, ge=0, description="Calls of tools.")
    max_repeated_calls: int | None = Field(None, ge=1, description="Equal calls of one tool with equal arguments.")


TextRule: TypeAlias = PersonalDataRule | SecretsRule | WordsRule | InjectionRule | ClassifierRule
ShapeRule: TypeAlias = CharactersRule | EncodedRule | LengthRule | RepetitionRule | LanguageRule | TopicsRule
SourceRule: TypeAlias = LinksRule | CodeRule | SchemaRule | GroundednessRule | CitationRule | ConversationRule
Rule = Annotated[TextRule | ShapeRule | SourceRule, Field(discriminator="check")]


class TableRuleBase(RuleBase):
    """A rule for the rows of a tabular request."""

    action: Literal["refuse", "flag"] = Field(description="refuse the request; flag: only count.")


class RangeRule(TableRuleBase):
    """A number outside the range of the training data."""

    check: Literal["range"] = Field(description="Ranges of numbers.")
    columns: tuple[str, ...] = Field((), description="Features; empty: all numbers.")
    margin: float = Field(0.0, ge=0, description="Share of the range by which a value may lie outside.")


class CombinationRule(TableRuleBase):
    """A combination of values that the training data does not have."""

    check: Literal["combination"] = Field(description="Combinations of values.")
    columns: tuple[str, ...] = Field(min_length=1, description="Features whose values belong together.")


TableRule = Annotated[RangeRule | CombinationRule, Field(discriminator="check")]


class Guardrails(Section):
    """Rules by the stage of a text; all rules of a stage apply, and the strictest action wins."""

    input: tuple[Rule, ...] = Field((), description="Rules for requests: messages, texts to embed, queries, rows.")
    passages: tuple[Rule, ...] = Field((), description="Rules for retrieved passages; refuse drops the passage.")
    output: tuple[Rule, ...] = Field((), description="Rules for answers, whole or streamed.")
    tools: tuple[Rule, ...] = Field((), description="Rules for the arguments and results of tools.")
    tables: tuple[TableRule, ...] = Field((), description="Rules for rows outside the training data of a tabular case.")

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Guardrails:
        labels = {stage: [rule.label for rule in rules] for stage, rules in self.stages()}
        for stage, names in {**labels, "tables": [rule.label for rule in self.tables]}.items():
            counts = Counter(names)
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

    def problem(self, *, has_embedder: bool) -> str:
        """Why a case can't have these rules; empty: it can."""
        for stage, rules in self.stages():
            for rule in rules:
                if rule.action == "route" and stage != "input":
                    return f"{stage}.{rule.label}: action route answers a request instead: only rules for input have it"
                if rule.check == "topics" and not has_embedder:
                    return f"{stage}.{rule.label}: topics are compared by an embedder; set serve.embedder"
        return ""

    @property
    def is_empty(self) -> bool:
        return not (self.tables or any(rules for _, rules in self.stages()))

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
