"""Instruction pairs: their rows, how a user's row becomes a pair, and the format of their answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.errors import CaseError, DataError
from tasks.data.config import Answer
from tasks.data.language.conversation import INPUT_ROLES, content_of, conversation, system_of
from tasks.language.messages import USER, chat_message, user_message

SHAPES = (  # the columns of users' sources
    ("messages",),
    ("prompt", "chosen", "rejected"),
    ("prompt", "completion"),
    ("instruction", "output"),  # with an input, if there is one
    ("text", "label"),  # the answer is {"label": ...}, or the label in prose
    ("prompt", "required_facts"),  # prose without a reference
    ("prompt", "evidence"),  # a question on documents
)
PARTS = ("train", "development", "evaluation")
LOG = ("answer", "feedback")  # beside messages or prompt: those of a log of requests


@dataclass(frozen=True)
class Pair:
    """A message and its expected answer."""

    messages: tuple[dict[str, str], ...]  # role and content, all before the answer, without the system prompt
    answer: str  # JSON or text, as the case declares
    intent: str
    origin: str  # "templates", or the source
    template: str = ""  # the wording; empty for a user's row
    day: date | None = None  # of the facts that fill the wording
    rejected: str | None = None  # a worse answer
    tokens: int = 0
    problem: str | None = None  # why it can't be used
    required_facts: tuple[str, ...] = ()  # that an answer in prose must state
    forbidden_facts: tuple[str, ...] = ()
    evidence: tuple[tuple[str, str], ...] = ()  # document and quotation: where the answer stands
    part: str = ""  # one of PARTS; empty: by hash
    unanswerable: bool = False  # no document answers it
    system: str = ""  # the row's own system message

    @property
    def pair_id(self) -> str:
        content = [self.messages, self.answer, *([self.rejected] if self.rejected is not None else [])]
        return digest_of(content)[:16]

    @property
    def text(self) -> str:
        """The user's message."""
        return user_message(self.messages)

    def row(self) -> dict[str, Any]:
        """Its row in a Parquet file."""
        return {
            "pair_id": self.pair_id,
            "intent": self.intent,
            "template": self.template,
            "day": self.day,
            "messages": json.dumps(self.messages, ensure_ascii=False),
            "answer": self.answer,
            "rejected": self.rejected,
            "origin": self.origin,
            "tokens": self.tokens,
            "required_facts": json.dumps(self.required_facts, ensure_ascii=False),
            "forbidden_facts": json.dumps(self.forbidden_facts, ensure_ascii=False),
            "evidence": json.dumps(self.evidence, ensure_ascii=False),
            "part": self.part,
            "unanswerable": self.unanswerable,
        }


class PairFormat:
    """The format of a case's answers: validates an answer, and writes it in a canonical form."""

    def __init__(self, answer: Answer) -> None:
        """Raises: CaseError when the schema is invalid."""
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        self.is_text = answer.format == "text"
        self.abstain = answer.abstain
        self._schema: Any = answer.json_schema or {}
        self._stated = answer.stated
        kind = validator_for(self._schema)
        try:
            kind.check_schema(self._schema)
        except SchemaError as error:
            raise CaseError(
                "The schema of the answers is no JSON schema.",
                where="answer.json_schema" + "".join(f".{part}" for part in error.absolute_path),
                found=error.message.splitlines()[0][:200],
                todo="Correct the schema; see json-schema.org.",
            ) from error
        self._validator = kind(self._schema)

    def errors(self, value: Any) -> Iterator[Any]:
        """The errors of jsonschema in an answer."""
        yield from self._validator.iter_errors(value)

    def problem(self, value: Any, message: str | None = None) -> str | None:
        """The first error of an answer (to a message, if any), in one sentence; None for a valid answer."""
        if self.is_text:
            return None if isinstance(value, str) else "the answer is no text"
        for error in self.errors(value):
            return f"the answer breaks the schema: {error_message(error)}"
        for key, stated in _stated(value, self._stated) if message is not None else ():
            if not re.search(rf"(?<!\w){re.escape(_spaced(stated))}(?!\w)", _spaced(message or "")):
                return f"the message does not say the answer's {key}: {stated!r}"
        return None

    def write(self, value: Any) -> str:
        """An answer as compact JSON, keys in the order of the schema; a text as it is."""
        if self.is_text:
            return str(value)
        return json.dumps(self._ordered(value, self._schema), separators=(",", ":"), ensure_ascii=False)

    def _ordered(self, value: Any, schema: Any) -> Any:
        schema = self._resolve(schema)
        for branch in schema.get("oneOf") or schema.get("anyOf") or ():
            if self._validator.evolve(schema=self._resolve(branch)).is_valid(value):
                return self._ordered(value, branch)
        if isinstance(value, list):
            return [self._ordered(each, schema.get("items")) for each in value]
        if isinstance(value, dict):
            known = schema.get("properties") or {}
            keys = [*(key for key in known if key in value), *(key for key in value if key not in known)]
            return {key: self._ordered(value[key], known.get(key)) for key in keys}
        return value

    def _resolve(self, schema: Any) -> dict[str, Any]:
        """Follow references within the schema; other values define no order."""
        for _ in range(32):  # a chain of references, not a circle
            reference = schema.get("$ref", "") if isinstance(schema, dict) else ""
            if not reference.startswith("#/"):
                break
            schema = self._schema
            for part in reference[2:].split("/"):
                schema = schema.get(part, {})
        return schema if isinstance(schema, dict) else {}


def _stated(value: Any, keys: Sequence[str], key: str = "") -> Iterator[tuple[str, str]]:
    """The values of an answer that the message must contain, with their keys."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else ((key, each) for each in value)
        for name, each in inner:
            yield from _stated(each, keys, name)
    elif key in keys and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield key, str(value)


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def schema_branches(error: Any) -> list[list[Any]]:
    """The errors of each branch of a oneOf or anyOf that matches no branch."""
    branches: dict[Any, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    return list(branches.values())


def error_message(error: Any) -> str:
    """An error of jsonschema in a few words; with several branches, that of the intended branch."""
    branches = schema_branches(error)
    if meant := [branch for branch in branches if not any(inner.validator == "const" for inner in branch)]:
        return error_message(min(meant, key=len)[0])
    where = error
    message = error.message
    if named := [inner for branch in branches for inner in branch if inner.validator == "const"]:
        where = named[0]
        allowed = dict.fromkeys(repr(inner.validator_value) for inner in named if inner.path == where.path)
        message = f"{where.instance!r} is none of {', '.join(allowed)}"
    path = ".".join(str(part) for part in where.absolute_path)
    return f"{path + ': ' if path else ''}{message[:160]}"


def read_pairs(name: str, rows: Sequence[Mapping[str, Any]], form: PairFormat) -> list[Pair]:
    """Pairs of a source's rows, in one of the forms of SHAPES.

    An invalid row has a `problem`. Raises: DataError when the columns have none of these shapes.
    """
    columns = list(rows[0]) if rows else []
    shape = next((shape for shape in SHAPES if set(shape) <= set(columns)), None)
    if shape is None:
        raise DataError(
            f"Source {name} holds no instruction pairs.",
            where=f"pairs.sources, {name}",
            found=f"columns {', '.join(columns)}" if columns else "no row",
            allowed="; or ".join(", ".join(shape) for shape in (*SHAPES, ("messages or prompt", *LOG))),
            todo="Name the columns so in the source's SQL.",
        )
    pairs = [read_row(name, row, shape, form) for row in rows]
    if len({pair.system for pair in pairs if pair.system}) < 2:
        return pairs  # one system message says nothing of a line; the case has its own
    differs = "its system message is not that of the other lines; a case has one: put it into the user's message"
    return [replace(pair, problem=pair.problem or (differs if pair.system else None)) for pair in pairs]


def read_row(name: str, row: Mapping[str, Any], shape: tuple[str, ...], form: PairFormat) -> Pair:
    """One row of a shape as a pair; an error is in its `problem`."""
    intent = str(row.get("intent") or name)
    try:
        messages, answer, rejected = _parts(row, shape, form)
    except ValueError as error:
        shown = (chat_message(USER, json.dumps(row[shape[0]], ensure_ascii=False, default=str)),)
        return Pair(shown, "", intent, name, problem=str(error))
    system = system_of([*messages, *([chat_message("system", str(row["system"]))] if row.get("system") else [])])
    problem = None
    if shape == ("messages",):
        *messages, last = messages or [chat_message(USER, "")]
        answer, problem = last["content"], "the last message is not an answer" if last["role"] in INPUT_ROLES else None
    before = tuple(message for message in messages if message["role"] not in ("system", "developer"))
    pair = Pair(
        before,
        answer,
        intent,
        name,
        problem=problem,
        required_facts=_facts(row.get("required_facts")),
        forbidden_facts=_facts(row.get("forbidden_facts")),
        part=str(row.get("part") or ""),
        unanswerable=row.get("unanswerable") is True,
        system=system,
    )
    pair = _on_documents(pair, row.get("evidence"), form)
    if not pair.text.strip():
        return replace(pair, problem=problem or "there is no message of the user")
    pair = resolve(pair, form)
    if rejected is not None:
        rejected = write_if_json(rejected, form)
        if rejected == pair.answer:
            return replace(pair, problem=pair.problem or "the rejected answer is the chosen one")
    return replace(pair, rejected=rejected)


def _parts(
    row: Mapping[str, Any], shape: tuple[str, ...], form: PairFormat
) -> tuple[list[dict[str, str]], str, str | None]:
    """The messages of a row, its answer (not of chat messages, which hold it) and the rejected answer."""
    if shape == ("messages",):
        return conversation(row["messages"]), "", None
    if shape == ("text", "label"):
        label = content_of(row["label"]) if form.is_text else json.dumps({"label": row["label"]}, ensure_ascii=False)
        return conversation(row["text"]), label, None
    if shape in (("prompt", "required_facts"), ("prompt", "evidence")):
        return conversation(row["prompt"]), "", None
    if shape == ("instruction", "output"):
        texts = [content_of(row[key]) for key in ("instruction", "input") if row.get(key)]
        return [chat_message(USER, "\n\n".join(texts))], content_of(row["output"]), None
    rejected = content_of(row["rejected"]) if "rejected" in shape and row["rejected"] is not None else None
    return conversation(row["prompt"]), content_of(row[shape[1]]), rejected


def _facts(value: Any) -> tuple[str, ...]:
    """The facts in a cell: a list of texts, or one text."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(each) for each in values if each is not None and str(each).strip())


def _on_documents(pair: Pair, evidence: Any, form: PairFormat) -> Pair:
    """The pair with its evidence; the right answer to one that no document answers is the abstention."""
    problem = None
    try:
        quotations = json.loads(evidence) if isinstance(evidence, str) else evidence or []
        pair = replace(pair, evidence=tuple((str(each["document"]), str(each["quote"])) for each in quotations))
    except (ValueError, TypeError, KeyError):
        problem = 'evidence must be a list of {"document": ..., "quote": ...}'
    if pair.part not in ("", *PARTS):
        problem = f"part must be one of {', '.join(PARTS)}, not {pair.part!r}"
    elif pair.unanswerable and form.abstain is None:
        problem = "it is unanswerable, so answer.abstain must be set: its right answer"
    elif pair.unanswerable and (pair.evidence or pair.required_facts):
        problem = "it is unanswerable, but has evidence or required facts"
    elif pair.unanswerable:
        pair = replace(pair, answer=form.write(form.abstain))
    return replace(pair, problem=pair.problem or problem)


def resolve(pair: Pair, form: PairFormat) -> Pair:
    """The pair with its answer in canonical form, or with its `problem`."""
    if form.is_text:
        answer = pair.answer.strip()
        missing = not (answer or pair.required_facts or pair.forbidden_facts or pair.evidence)
        return replace(pair, answer=answer, problem=pair.problem or ("there is no answer" if missing else None))
    try:
        value = parse(pair.answer)
    except ValueError:
        return replace(pair, problem=pair.problem or f"the answer is not JSON: {pair.answer[:80]!r}")
    return replace(pair, answer=form.write(value), problem=pair.problem or form.problem(value, pair.text))


def parse(text: str) -> Any:
    """The value of a JSON text; for JSON inside a JSON string, the value of the inner text."""
    value = json.loads(text)
    return json.loads(value) if isinstance(value, str) else value


def write_if_json(text: str, form: PairFormat) -> str:
    """An answer in canonical form if it is JSON; a rejected answer need not be."""
    if form.is_text:
        return text.strip()
    try:
        return form.write(parse(text))
    except ValueError:
        return text


def write_pairs(pairs: Sequence[Pair], path: Path, *, problems: bool = False) -> None:
    """Write pairs as Parquet, equal ones as equal bytes; with `problems`, also that column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"day": pa.date32(), "tokens": pa.int64(), "unanswerable": pa.bool_()}
    names = [*Pair((), "", "", "").row(), *(["problem"] if problems else [])]
    rows = [{**pair.row(), "problem": pair.problem} for pair in pairs]
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name, pa.string())) for name in names}
    pq.write_table(pa.table(columns), path)
