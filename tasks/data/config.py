"""The sections of a case that define its data: sources, expectations, base model, prompt, pairs, traffic."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tasks.core.config import READ_STRUCTURE, Duration, Result, Section, Sql, Text
from tasks.data.origins.address import address_problem
from tasks.data.reading.config import Column, FileFormat
from tasks.language.json_schema import check_schema
from tasks.language.prompts import Prompt
from tasks.language.upstream import is_remote, source_problem

COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")


class Expectation(Section):
    """One Great Expectations expectation: its type without `expect_`, and its arguments as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    expect: str = Field(description="Type without the prefix, such as column_values_to_not_be_null.")
    severity: Literal["critical", "warning"] = Field(
        "critical", description="critical: its rows are quarantined, or the batch fails; warning: only reported."
    )
    values_of: str | None = Field(
        None, pattern=r"^\w+\.\w+$", description="TABLE.COLUMN of another source: the allowed values (a foreign key)."
    )
    why: str = Field("", description="The reason, shown beside each quarantined row.")

    @property
    def arguments(self) -> dict[str, object]:
        return dict(self.model_extra or {})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its arguments name."""
        values = [self.arguments.get(name, []) for name in COLUMN_ARGUMENTS]
        return tuple(each for value in values for each in (value if isinstance(value, list | tuple) else [str(value)]))


ROW_NUMBER = re.compile(r"\brow_number\s*\(\s*\)\s*over\s*\(\s*\)", re.IGNORECASE)


class Source(Section):
    """One table: where to read it, when its rows become known, and what is expected of them."""

    uri: str = Field(
        pattern=r"^([a-z][a-z0-9+.-]*://.+|\$\{?[A-Z][A-Z0-9_]*\}?$)",
        description="file://PATH: a file, folder or glob pattern (relative: from the case folder); package://NAME/PATH "
        "in an installed package; https:// or s3:// with a path; a SQLAlchemy URL of a database, with `query`; "
        "guard://NAME: labelled texts for a guardrail's classifier (injection, harm), from registry packages; or "
        "log://CASE: what the gateway answered for a language case, with the feedback that came. $VARIABLE stands for "
        "a secret.",
    )
    query: Sql = Field("", description="Of a database: the rows to read.")
    columns: dict[str, Column] = Field(
        {},
        description="Columns to read, with their types (text, integer, number, boolean, timestamp, date, json, or "
        "{type: date, format: '%d.%m.%Y'}); a row with another value is rejected. Empty: all rows decide the types.",
    )
    missing: tuple[str, ...] = Field(("",), description="Words that stand for a missing value; '' is the empty field.")
    format: FileFormat = Field(
        default_factory=lambda: FileFormat.model_validate({}),
        description="How the file is written, where it differs from the default.",
    )
    sql: Sql = Field("SELECT * FROM raw", description="Makes the table from `raw`, the file as read.")
    key: tuple[str, ...] = Field(min_length=1, description="Columns that name a row.")
    time: str | None = Field(None, description="Timestamp column; splits the table into monthly batches.")
    known_at: str | None = Field(None, description="Timestamp column: nobody knows the row before (default: `time`).")
    late: dict[str, tuple[str, ...]] = Field(
        {}, description="Timestamp column: the columns that stay empty until then, such as outcomes."
    )
    tolerance: float = Field(0.01, ge=0, le=1, description="Share of bad rows above which a batch fails.")
    expectations: tuple[Expectation, ...] = Field((), description="What is expected of the rows.")
    batch_expectations: tuple[Expectation, ...] = Field(
        (),
        description="What is expected of the table of batches (batch, rows, first, last, hours_since_last): "
        "volume and freshness.",
    )

    @model_validator(mode="after")
    def _address_is_whole(self) -> Source:
        if problem := address_problem(self.uri, self.query):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _times_belong_together(self) -> Source:
        if self.time is None and (self.known_at or self.late):
            raise ValueError("known_at and late need time: name the column that says when a row happened")
        return self

    @property
    def numbers_rows(self) -> bool:
        """Whether its SQL numbers the rows: such a number names another row in the next delivery."""
        return bool(ROW_NUMBER.search(self.sql))

    @property
    def log(self) -> str:
        """The case whose request log it is; empty: it is a file."""
        scheme, _, case = self.uri.partition("://")
        return case if scheme == "log" else ""


class Data(Section):
    """Tables of the case."""

    sources: dict[str, Source] = Field({}, description="Tables by name, as the case's SQL calls them.")

    @model_validator(mode="after")
    def _references_exist(self) -> Data:
        for name, source in self.sources.items():
            for expectation in source.expectations:
                if expectation.values_of and expectation.values_of.split(".")[0] not in self.sources:
                    raise ValueError(
                        f"sources.{name}: values_of {expectation.values_of} names no source; "
                        f"there are: {', '.join(self.sources)}"
                    )
        return self


class TableData(Data):
    """Tables of a case that learns from them."""

    sources: dict[str, Source] = Field(min_length=1, description="Tables by name, as the case's SQL calls them.")


class Model(Section):
    """Base model of a language case, pinned to its weights."""

    source: str = Field(
        pattern=r"^(package|file|hf|openai(\+https?)?)://.+",
        description="package://NAME/PATH, file://PATH (.gguf, or a folder as transformers saves it; relative: from "
        "the case folder), hf://ORG/NAME, or a server with OpenAI's API: openai://HOST/v1#MODEL, or "
        "openai://$NAME#MODEL with its address in an environment variable. HTTPS, but HTTP for this machine, private "
        "networks and openai+http://.",
    )
    key: str = Field(
        "",
        pattern=r"^([A-Za-z_]\w*)?$",
        description="With openai://: name of the environment variable with the API key. Empty: no key.",
    )
    parameters: dict[str, Any] = Field(
        {},
        description="With openai://: further fields of each request, such as reasoning_effort; null omits one that is "
        "otherwise sent, such as temperature.",
    )
    revision: str = Field("", description="Commit of the hub's repository; required with hf://.")
    sha256: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="SHA-256 of the weights; other weights are refused."
    )
    chat_template: Text = Field("", description="Chat template in Jinja, or a .jinja file; empty: the model's own.")
    context: int = Field(1024, ge=64, description="Maximum tokens of prompt and answer together.")

    @model_validator(mode="after")
    def _fits_its_source(self) -> Model:
        remote = is_remote(self.source)
        if remote and (problem := source_problem(self.source)):
            raise ValueError(f"source: {problem}")
        pins = ("revision", "sha256", "chat_template")
        if names := [name for name in (pins if remote else ("key", "parameters")) if getattr(self, name)]:
            raise ValueError(f"{', '.join(names)}: {'not for' if remote else 'only for'} a source openai://")
        if fixed := sorted({"messages", "model", "stream", "n", "tools", "response_format"} & self.parameters.keys()):
            raise ValueError(f"parameters: {', '.join(fixed)} come with each request")
        return self


Embedder = Annotated[
    str,
    Field(
        pattern=r"^(package|file)://.+",
        description="Sentence-embedding model, a folder as transformers saves it, or with model.onnx: "
        "package://NAME/FOLDER, or file://FOLDER (relative: from the case folder). After # the folder of its "
        "tokenizer, where that is another one.",
    ),
]


class Answer(Section):
    """The form of a right answer: one JSON value by a schema, or text."""

    format: Literal["json", "text"] = Field("json", description="json: one JSON value by the schema; text: prose.")
    json_schema: Annotated[dict[str, Any] | None, READ_STRUCTURE] = Field(
        None, description="JSON schema, or a .json file. Required for json."
    )
    abstain: dict[str, Any] | str | None = Field(
        None, description="The answer to what is out of scope: an object, or for text a sentence. Empty: none is."
    )
    stated: tuple[str, ...] = Field(
        (), description="Keys of json whose values must occur in the message; other values count as hallucinated."
    )

    @property
    def texts(self) -> dict[str, str]:
        """Schema and abstention as a prompt states them; empty where there is none."""
        abstain = self.abstain or ""
        return {
            "schema": json.dumps(self.json_schema, ensure_ascii=False) if self.json_schema else "",
            "abstain": abstain if isinstance(abstain, str) else json.dumps(abstain, ensure_ascii=False),
        }

    @field_validator("json_schema")
    @classmethod
    def _can_be_enforced(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            check_schema(schema)
        return schema

    @model_validator(mode="after")
    def _matches_format(self) -> Answer:
        if self.format == "json":
            if self.json_schema is None:
                raise ValueError("format json needs json_schema; for answers in prose set format: text")
            if isinstance(self.abstain, str):
                raise ValueError("abstain must be an object of the schema; a sentence is for format: text")
        elif self.json_schema is not None or self.stated:
            raise ValueError("json_schema and stated are for format: json")
        elif isinstance(self.abstain, dict):
            raise ValueError("abstain must be a sentence for format: text")
        return self


class ChatSpec(Section):
    """All that is said to a model before a message, and what it may answer."""

    prompt: Prompt
    answer: Answer
    context: int = Field(ge=64, description="Maximum tokens of prompt and answer together.")


class Intent(Section):
    """One kind of message: rows of facts, wordings that they fill, and the answer that is right."""

    facts: Sql = Field(
        "SELECT 1 AS fact",
        description="SQL over the sources: one row a possible message. `day` (a date) decides on which side of the "
        "split it may come; every other column may be named in braces.",
    )
    answer: dict[str, Any] = Field(description="Expected answer; '{column}' is replaced by a fact.")
    share: float = Field(1.0, gt=0, description="Relative frequency of the intent.")
    train: tuple[str, ...] = Field((), description="Wordings for training.")
    held_out: tuple[str, ...] = Field(min_length=1, description="Wordings only for the evaluation.")


class Templates(Section):
    """Wordings from which messages are made."""

    intents: dict[str, Intent] = Field(min_length=1)
    openers: dict[Literal["train", "held_out"], tuple[str, ...]] = Field(
        {}, description="Texts that sometimes precede a wording."
    )
    closers: dict[Literal["train", "held_out"], tuple[str, ...]] = Field(
        {}, description="Texts that sometimes follow a wording."
    )
    typos: float = Field(0.0, ge=0, le=1, description="Share of messages with one typing error outside the facts.")


class Pairs(Section):
    """Instruction pairs: their sources, cleaning and split. Without templates and sources, a case has none."""

    templates: Annotated[Templates | None, READ_STRUCTURE] = Field(None, description="Templates, or a .yaml file.")
    sources: tuple[str, ...] = Field(
        (),
        description="Sources whose rows are pairs: messages; prompt and completion; prompt, chosen and rejected; or, "
        "of a log: messages or prompt, answer, feedback (up, down or a score) and, where there is one, correction.",
    )
    liked: float = Field(0.5, description="Of a log: minimum score of a liked answer.")
    safety: str | None = Field(None, description="Source of unsafe prompts (column `prompt`) that must be refused.")
    train: int = Field(1440, ge=8, description="Training pairs generated from templates.")
    validation: int = Field(96, ge=8, description="Pairs of training wordings held out for validation during training.")
    evaluation: int = Field(
        400, ge=8, description="Pairs of held-out wordings and days for the evaluation; they stay the same."
    )
    unsafe: int = Field(100, ge=0, description="Maximum number of unsafe prompts.")
    held_out_days: Duration = Field(
        timedelta(days=14), description="Length of the last period, whose facts only the evaluation uses."
    )
    near_duplicate: float = Field(
        0.9, gt=0.5, le=1, description="Similarity of two messages above which one is dropped."
    )
    mask: tuple[Literal["email", "phone", "card", "iban", "secret"], ...] = Field(
        ("email", "phone", "card", "iban", "secret"),
        description="Kinds of personal data and secrets that are replaced by placeholders.",
    )
    seed: int = Field(0, ge=0, description="Random seed.")
    tolerance: float = Field(0.01, ge=0, le=1, description="Maximum share of bad pairs; above it the run fails.")
    expectations: tuple[Expectation, ...] = Field(
        (), description="Expectations on the pairs, besides the built-in ones."
    )

    @property
    def none(self) -> bool:
        """Whether the case has no pair, so that no right answer is known."""
        return self.templates is None and not self.sources


class Traffic(Section):
    """Messages since the release: `predict` answers them, `monitor` evaluates the answers."""

    source: str | None = Field(
        None,
        description="Source with a time whose rows were asked, such as log://CASE: messages, or prompt, and once it is "
        "known the right answer (completion). Empty: messages are replayed from the wordings that are never learned "
        "from, and the facts of each day.",
    )
    a_day: int = Field(12, ge=1, le=10_000, description="Replayed messages per day.")
    shift: Annotated[Templates | None, READ_STRUCTURE] = Field(
        None, description="Templates of other messages that simulate drift."
    )
    share: float = Field(0.5, gt=0, le=1, description="Share of the replayed messages that come from `shift`.")
    outcomes: bool = Field(
        True, description="Whether expected answers become known; false: monitoring measures only proxies."
    )


class PairsSpec(Result):
    """What the instruction pairs of a case are made from, and for."""

    pairs: Pairs
    chat: ChatSpec
    sources: dict[str, Source]
    tuned: bool = True  # False: no pair is trained on, so that more of them evaluate
    traffic: str | None = None  # source of requests, whose messages evaluate a case without pairs
    messages: tuple[str, ...] = ()  # further ones for a case without pairs, such as headings of its documents


class TrafficSpec(Result):
    """What the requests of a case are read or generated from."""

    traffic: Traffic
    pairs: Pairs
    answer: Answer
    sources: dict[str, Source]
