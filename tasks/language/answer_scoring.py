"""Deterministic scores of answers: for evaluation, and as the reward of reinforcement tuning."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.core.errors import CaseError

REFUSAL = re.compile(
    r"\b((i am|i'?m) (sorry|unable|not able)|sorry, (but )?i|i apologi[sz]e|unfortunately,? i|as an ai"
    r"|(i|we) (can'?t|cannot|can not|won'?t|will not|must decline|decline|refuse)|against my guidelines)\b"
)
LOOP = re.compile(r"(.{1,40}?)\1{9,}", re.DOTALL)  # ten times the same in a row
NGRAM = 4  # words
MIN_NGRAMS = 8  # shorter texts count as without repetition
MAX_REPETITION = 0.3  # share of repeated word groups above which an answer counts as repetitive


@dataclass(frozen=True)
class Score:
    """The scores of one answer."""

    json_valid: bool | None  # None: the answer is prose
    schema_valid: bool | None
    exact: bool
    exact_anywhere: bool  # the expected JSON occurs within the text, even amid prose: fair to an untuned model
    fields_correct: int  # key-value pairs both predicted and expected
    fields_predicted: int
    fields_expected: int
    hallucinated: bool | None  # a stated value is absent from the message; None: no value was stated
    abstained: bool
    should_abstain: bool
    repetition: float  # share of repeated four-word groups
    repeated: bool
    # of prose
    token_f1: float | None = None  # None: without a reference
    rouge_l: float | None = None
    facts_stated: int = 0
    facts_required: int = 0
    forbidden_stated: bool | None = None  # None: nothing is forbidden
    words: int = 0


class Scorer(Protocol):
    """Scores the answers of a case."""

    def score(
        self, text: str, answer: str, message: str, required: Sequence[str] = (), forbidden: Sequence[str] = ()
    ) -> Score:
        """Score `text` as a response to `message`, against the expected `answer` and facts."""
        ...


class JsonScorer:
    """Scores answers in JSON of one case; the schema is compiled once.

    Raises: CaseError when the schema is invalid.
    """

    def __init__(self, schema: Mapping[str, Any], stated: Sequence[str] = (), abstain: Mapping[str, Any] | None = None):
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        checker = validator_for(schema, default=Draft202012Validator)
        try:
            checker.check_schema(schema)
        except SchemaError as error:
            raise CaseError(
                "The answer's schema is not a valid JSON schema.",
                where="answer.json_schema" + "".join(f".{part}" for part in error.absolute_path),
                found=error.message,
                todo="Correct it; json-schema.org lists the keywords.",
            ) from error
        # an empty registry: otherwise a $ref to a URL would be fetched
        self._schema = checker(schema, registry=Registry())
        self._stated = frozenset(stated)
        self._abstain = None if abstain is None else _canonical(abstain)

    def score(
        self, text: str, answer: str, message: str, required: Sequence[str] = (), forbidden: Sequence[str] = ()
    ) -> Score:
        """Score `text` as a response to `message`, against the expected `answer` (JSON, or a refusal in prose).

        The facts, `required` and `forbidden`, are for prose.
        """
        valid, predicted = read_json(text)
        expected_valid, expected = read_json(answer)
        if expected_valid:
            exact = valid and _canonical(predicted) == _canonical(expected)
            anywhere = exact or any(_canonical(each) == _canonical(expected) for each in _objects(text))
        else:
            exact = anywhere = _plain(text) == _plain(answer)
        predicted_fields, expected_fields = (
            Counter(_leaves(each)) for each in (predicted if valid else {}, expected if expected_valid else {})
        )
        share = repetition(text)
        return Score(
            json_valid=valid,
            schema_valid=valid and self._schema.is_valid(predicted),
            exact=exact,
            exact_anywhere=anywhere,
            fields_correct=(predicted_fields & expected_fields).total(),
            fields_predicted=predicted_fields.total(),
            fields_expected=expected_fields.total(),
            hallucinated=self._hallucinated(predicted, message) if valid else None,
            abstained=self._abstains(valid, predicted, text),
            should_abstain=self._abstains(expected_valid, expected, answer),
            repetition=share,
            repeated=is_repetitive(text, share),
        )

    def _abstains(self, valid: bool, predicted: Any, text: str) -> bool:
        return _canonical(predicted) == self._abstain if valid else is_refusal(text)

    def _hallucinated(self, predicted: Any, message: str) -> bool | None:
        plain = _plain(message)
        values = [
            value
            for path, leaf in _leaves(predicted)
            if path[-1:] and path[-1] in self._stated
            if isinstance(value := json.loads(leaf), str | int | float) and not isinstance(value, bool)
        ]
        if not values:
            return None
        return any(not re.search(rf"(?<!\w){re.escape(_plain(str(value)))}(?!\w)", plain) for value in values)


def reward(score: Score) -> float:
    """The reward of an answer, 0 to 1; only an exact answer, or a refusal where one is expected, earns 1."""
    if score.fields_expected:
        fields = 2 * score.fields_correct / (score.fields_predicted + score.fields_expected)
        return 0.1 * bool(score.json_valid) + 0.2 * bool(score.schema_valid) + 0.3 * fields + 0.4 * score.exact
    if score.exact or (score.should_abstain and score.abstained):
        return 1.0
    return 0.9 * (score.token_f1 or 0.0)


def metric_fractions(score: Score) -> dict[str, tuple[float, float]]:
    """The numerator and denominator that an answer adds to each metric, which is the ratio of their sums."""
    correct, predicted, expected = score.fields_correct, score.fields_predicted, score.fields_expected
    return {
        "json_validity": (score.json_valid is True, score.json_valid is not None),
        "schema_validity": (score.schema_valid is True, score.schema_valid is not None),
        "exact_match": (score.exact, 1),
        "exact_match_anywhere": (score.exact_anywhere, 1),
        "field_precision": (correct, predicted),
        "field_recall": (correct, expected),
        "field_f1": (2 * correct, predicted + expected),
        "hallucination_rate": (score.hallucinated is True, score.hallucinated is not None),
        "abstention_recall": (score.abstained and score.should_abstain, score.should_abstain),
        "wrong_abstention_rate": (score.abstained and not score.should_abstain, not score.should_abstain),
        "repetition_rate": (score.repeated, 1),
        "token_f1": (score.token_f1 or 0, score.token_f1 is not None),
        "rouge_l": (score.rouge_l or 0, score.rouge_l is not None),
        "required_facts_recall": (score.facts_stated, score.facts_required),
        "forbidden_rate": (score.forbidden_stated is True, score.forbidden_stated is not None),
        "answer_words": (score.words, score.words > 0),
    }


def summarise(scores: Iterable[Score]) -> dict[str, float]:
    """The metrics of these answers; a metric without applicable answers is omitted."""
    above: dict[str, float] = defaultdict(float)
    below: dict[str, float] = defaultdict(float)
    for score in scores:
        for name, (over, under) in metric_fractions(score).items():
            above[name] += over
            below[name] += under
    return {name: above[name] / count for name, count in below.items() if count}


def read_json(text: str) -> tuple[bool, Any]:
    """Whether the whole text is one JSON value, and that value."""
    try:
        return True, json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False, None


def is_refusal(text: str) -> bool:
    """Whether prose is a refusal, judged by its beginning."""
    return REFUSAL.search(_plain(text)[:200].replace("\u2019", "'")) is not None


def repetition(text: str) -> float:
    """Share of four-word groups that occurred before in the text."""
    words = re.findall(r"\w+", text.lower())
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) >= MIN_NGRAMS else 0.0


def is_repetitive(text: str, share: float) -> bool:
    """Whether a text with this `repetition` repeats itself too much, or loops."""
    return share > MAX_REPETITION or LOOP.search(_plain(text)) is not None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _canonical(value: Any) -> str:
    # compare as text: in Python, 1 == True
    return json.dumps(value, sort_keys=True)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Key-value pairs at any depth, the value as JSON; list items share a path, so their order does not count."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, path)
    elif path:
        yield path, _canonical(value)


def _objects(text: str) -> Iterator[Any]:
    """The JSON objects within a text, in order."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            yield value
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
