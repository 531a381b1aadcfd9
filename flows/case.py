"""A case: one use of the platform, read from its folder under configs/."""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from flows.case_errors import direct_causes, error_line
from flows.schedule import Schedule
from services.rollout.config import Plan
from services.store.config import ApprovalRule
from tasks.core.config import Section
from tasks.core.errors import CaseError
from tasks.core.yaml_file import load_yaml
from tasks.data.config import Answer, ChatSpec, Data, Model, Pairs, TableData, Traffic
from tasks.evaluate.config import Evaluate, LanguageEvaluation
from tasks.features.config import Features, FrameSpec, check_free
from tasks.guard.config import Guardrails, with_floor
from tasks.knowledge.config import DOCUMENTS, Knowledge
from tasks.language.prompt_file import PromptField
from tasks.language.upstream import is_remote
from tasks.monitor.config import AnswerMonitor, Monitor, TabularSpec
from tasks.release.config import Price
from tasks.search.config import Search
from tasks.train.config import Serving, Target, Train, Tuning


class Case(Section):
    """The keys of both kinds of cases."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$", description="Name of the case's folder.")
    kind: str = Field(description="tabular or llm.")
    description: str = Field(description="One sentence.")
    as_of: datetime | None = Field(None, description="Default as-of time: data known later is ignored. Empty: now.")
    data: Data = Data()
    price: Price = Price()
    schedule: Schedule = Schedule()
    search: Search = Search()
    approval: ApprovalRule | None = Field(None, description="Approval of each release by a person; empty: no approval.")
    rollout: Plan | None = Field(
        None, description="Steps by which a new release takes over the traffic; empty: all at once."
    )

    guardrails: Guardrails = Field(
        Guardrails(), description="Rules for what goes in and out, behind those of configs/platform.yaml."
    )

    @field_validator("as_of", mode="before")
    @classmethod
    def _parse_date(cls, value: Any) -> Any:
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        return value

    @field_validator("as_of")
    @classmethod
    def _assume_utc(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value

    @cached_property
    def folder(self) -> Path:
        from tasks.core.settings import settings

        return settings().cases / self.name

    @property
    def answer_price(self) -> Price:
        """The price that releases seal."""
        return self.price

    @property
    def verbatim(self) -> frozenset[str]:
        """The sources whose texts are read as they stand: those of instruction pairs."""
        return frozenset()


class TabularCase(Case):
    """A case that predicts a column of a table."""

    kind: Literal["tabular"] = Field(description="Kind of the case.")
    trusted: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(
        (),
        description="SHA-256 of pickled models that `driftline import-model` may load: a pickle runs code.",
    )
    data: TableData
    target: Target
    features: Features
    train: Train
    evaluate: Evaluate
    monitor: Monitor

    @property
    def has_time(self) -> bool:
        """Whether rows have a moment of their own; else they are monitored by what was scored."""
        return any(source.time for source in self.data.sources.values())

    @property
    def monitor_spec(self) -> TabularSpec:
        sources = list(self.data.sources.values())
        return TabularSpec(
            target=self.target,
            monitor=self.monitor,
            gate=self.evaluate.champion_gate,
            fairness=self.evaluate.fairness,
            keys=sources[0].key if len(sources) == 1 else (),
            rows_are_numbered=any(source.numbers_rows for source in sources),
        )

    @model_validator(mode="after")
    def _rules_are_for_tables(self) -> TabularCase:
        if self.guardrails.passages or self.guardrails.output or self.guardrails.tools:
            raise ValueError("guardrails: a tabular case has rules for input and tables only")
        if problem := self.guardrails.problem(has_embedder=False):
            raise ValueError(f"guardrails.{problem}")
        return self

    @model_validator(mode="after")
    def _target_is_free(self) -> TabularCase:
        check_free((self.target.column, *self.evaluate.slices))
        return self

    @property
    def frame_spec(self) -> FrameSpec:
        return FrameSpec(features=self.features, target=self.target.column, slices=self.evaluate.slices)


class LanguageCase(Case):
    """A case that answers messages, in JSON or in prose, by a base model with a prompt; the model may be tuned."""

    kind: Literal["llm"] = Field(description="Kind of the case.")
    model: Model
    prompt: PromptField
    answer: Answer
    pairs: Pairs = Pairs()
    knowledge: Knowledge | None = Field(None, description="Documents that answers come from. Empty: none.")
    train: Tuning | None = Field(None, description="How the base is tuned. Empty: it answers as it is, by the prompt.")
    serve: Serving = Serving()
    evaluate: LanguageEvaluation
    traffic: Traffic = Traffic()
    monitor: AnswerMonitor = AnswerMonitor()

    @model_validator(mode="after")
    def _can_be_served(self) -> LanguageCase:
        if self.train and is_remote(self.model.source):
            raise ValueError("train needs the model's weights: a model behind openai:// answers as it is")
        if self.train is None and self.serve.engine == "vllm":
            raise ValueError("serve.engine: vllm needs train: without it the CPU engine serves the base")
        if self.prompt.places_passages and self.knowledge is None:
            raise ValueError("prompt: {{ passages }} needs knowledge: documents that passages come from")
        if self.train is not None and self.pairs.none and not self.practises:
            raise ValueError("train needs pairs to learn from: pairs.sources, or knowledge.documents with practice")
        if self.practises and (self.train is None or self.answer.format != "text"):
            raise ValueError("knowledge.documents with practice need train, and answer.format: text")
        if self.knowledge and self.serve.embedder not in (None, "", self.knowledge.embedder):
            raise ValueError("serve.embedder must be that of knowledge.embedder, or be left out: a release has one")
        if of_tables := self.search.of_tables:
            raise ValueError(
                f"search.{of_tables[0]} is of tables; a language case is searched by evaluate.champion_gate.loss"
            )
        if self.knowledge and self.knowledge.answer_by == "extract" and self.answer.format != "text":
            raise ValueError("knowledge.answer_by: extract needs answer.format: text")
        return self

    @model_validator(mode="after")
    def _rules_are_for_texts(self) -> LanguageCase:
        if self.guardrails.tables:
            raise ValueError("guardrails.tables: only a tabular case has rows")
        embedder = self.serve.embedder or (self.knowledge and self.knowledge.embedder)
        if problem := self.guardrails.problem(has_embedder=bool(embedder)):
            raise ValueError(f"guardrails.{problem}")
        reading = [rule.label for rule in self.guardrails.output if rule.reads_passages]
        if reading and self.knowledge is None:
            raise ValueError(f"guardrails.output: {reading[0]} reads passages, and a case without knowledge has none")
        return self

    @model_validator(mode="after")
    def _documents_come_from_sources(self) -> LanguageCase:
        rows = (
            {config.rows_of for config in self.knowledge.documents.values() if config.rows_of}
            if self.knowledge
            else set()
        )
        if unknown := sorted(rows - set(self.data.sources)):
            raise ValueError(
                f"knowledge: no source is called {', '.join(unknown)}; there are: {', '.join(self.data.sources)}"
            )
        if self.knowledge and DOCUMENTS in self.data.sources:
            raise ValueError(f"a source can't be called {DOCUMENTS}: a snapshot calls the documents of knowledge so")
        return self

    @property
    def verbatim(self) -> frozenset[str]:
        return frozenset(filter(None, (*self.pairs.sources, self.pairs.safety, self.traffic.source)))

    @property
    def answer_price(self) -> Price:
        """The price that releases seal: of a model behind an address by default that of its tokens alone."""
        if is_remote(self.model.source) and "machine_hour" not in self.price.model_fields_set:
            return self.price.model_copy(update={"machine_hour": 0.0})
        return self.price

    @property
    def practises(self) -> bool:
        """Whether a tuned model learns from documents instead of pairs."""
        return self.knowledge is not None and bool(self.knowledge.practice)

    @property
    def chat_spec(self) -> ChatSpec:
        prompt = self.prompt.bound(**self.answer.texts)
        return ChatSpec(prompt=prompt, answer=self.answer, context=self.model.context)


KINDS: dict[str, type[TabularCase] | type[LanguageCase]] = {"tabular": TabularCase, "llm": LanguageCase}


def case_names(cases: Path) -> list[str]:
    """The names of all cases."""
    return sorted(path.parent.name for path in cases.glob("*/case.yaml"))


def load_case(name: str, cases: Path, profile: str | None = None) -> TabularCase | LanguageCase:
    """Read and check a case. Raises: CaseError with all wrong keys and values."""
    path = cases / name / "case.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, case_names(cases), 1)
        raise CaseError(
            f"There is no case {name!r}.",
            where=str(cases),
            found=", ".join(case_names(cases)) or "no case at all",
            todo=f"Did you mean {near[0]}?" if near else f"Create {path}, or name one of those.",
        )
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CaseError(
            "The case file is not valid YAML.", where=str(path), found=str(error), todo="Correct the line."
        ) from error
    if not isinstance(values, dict):
        raise CaseError("The case file is empty.", where=str(path), allowed=", ".join(TabularCase.model_fields))
    if not isinstance(values.get("kind"), str) or values["kind"] not in KINDS:
        raise CaseError(
            f"Case {name} has an unknown kind.",
            where=f"{path}, kind",
            found=repr(values.get("kind")),
            allowed=", ".join(KINDS),
        )
    kind = KINDS[values["kind"]]
    profiles = values.pop("profiles", None) or {}
    if profile:
        if not isinstance(profiles, dict) or profile not in profiles:
            raise CaseError(
                f"Case {name} has no profile {profile!r}.",
                where=str(path),
                allowed=", ".join(map(str, profiles)) or "none declared",
            )
        values = _merge(values, profiles[profile])
    values = _with_floor(values)
    try:
        return kind.model_validate({**values, "name": name}, context={"folder": path.parent})
    except ValidationError as error:
        wrong = direct_causes(error.errors())
        raise CaseError(
            f"Case {name} is not valid: {len(wrong)} to correct.",
            where=str(path),
            found="".join(f"\n    {error_line(each, kind)}" for each in wrong),
            todo=f"Correct these, then: driftline validate {name}",
        ) from error


def _with_floor(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a case with the platform's guardrails. Raises: CaseError when these are wrong."""
    from tasks.core.settings import settings

    floor = settings().guardrails
    if not floor:
        return values
    try:
        Guardrails.model_validate(floor)
    except ValidationError as error:
        raise CaseError(
            "The platform's guardrails are not valid.",
            where="configs/platform.yaml, guardrails",
            found="".join(f"\n    {error_line(each, Case)}" for each in direct_causes(error.errors())),
            todo="Correct these.",
        ) from error
    return {**values, "guardrails": with_floor(values.get("guardrails"), floor)}


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}
    return over
