"""Deterministic scores of answers: for evaluation, and as the reward of reinforcement tuning."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tasks.core.errors import CaseError
from tasks.statistics.metric_catalog import CUSTOM

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
    should_abstain: bool | None  # None: unknown
    repetition: float  # share of repeated four-word groups
    repeated: bool
    # of prose
    token_f1: float | None = None  # None: without a reference
    rouge_l: float | None = None
    facts_stated: int = 0
    facts_required: int = 0
    forbidden_stated: bool | None = None  # None: nothing is forbidden
    words: int = 0
    # of both
    empty: bool = False
    has_reference: bool = True  # whether a right answer is known
    similarity: float | None = None  # cosine of answer and reference, 0 to 1; None: without embedder or reference
    # of answers from passages
    recall_at_5: float | None = None  # of the search; None: no passage is known to be relevant
    reciprocal_rank: float | None = None
    ndcg_at_10: float | None = None
    citations: int = 0  # of an answer whose relevant passages are known
    citations_right: int = 0
    grounded: float | None = None  # 1: all that it states stands in the passages that it cites; None: it abstains
    replaced: bool | None = None  # by the abstention, since it was not grounded; None: no model answered
    custom: Mapping[str, float] | None = None  # scores by the case's own scorers; None: it has none


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
            should_abstain=self._abstains(expected_valid, expected, answer) if answer.strip() else None,
            repetition=share,
            repeated=is_repetitive(text, share),
            empty=not text.strip(),
            has_reference=bool(answer.strip()),
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


@dataclass(frozen=True)
class AnswerMetric:
    """A metric of answers: each answer adds to a numerator and a denominator, and the metric is their ratio."""

    name: str  # in the metric catalog
    fraction: Callable[[Score], tuple[float, float]]
    format: Literal["json", "text", "passages"] | None = None  # of answers that have it; None: of all
    judges: bool = True  # False: it needs no right answer, facts or passages, only the answer itself


METRICS = (
    AnswerMetric("json_validity", lambda s: (s.json_valid is True, s.json_valid is not None), "json", judges=False),
    AnswerMetric(
        "schema_validity", lambda s: (s.schema_valid is True, s.schema_valid is not None), "json", judges=False
    ),
    AnswerMetric("exact_match", lambda s: (s.exact, s.has_reference)),
    AnswerMetric("exact_match_anywhere", lambda s: (s.exact_anywhere, s.has_reference)),
    AnswerMetric("field_precision", lambda s: (s.fields_correct, s.fields_predicted * s.has_reference), "json"),
    AnswerMetric("field_recall", lambda s: (s.fields_correct, s.fields_expected), "json"),
    AnswerMetric(
        "field_f1", lambda s: (2 * s.fields_correct, (s.fields_predicted + s.fields_expected) * s.has_reference), "json"
    ),
    AnswerMetric(
        "hallucination_rate", lambda s: (s.hallucinated is True, s.hallucinated is not None), "json", judges=False
    ),
    AnswerMetric("abstention_recall", lambda s: (s.abstained and s.should_abstain is True, s.should_abstain is True)),
    AnswerMetric(
        "wrong_abstention_rate", lambda s: (s.abstained and s.should_abstain is False, s.should_abstain is False)
    ),
    AnswerMetric("abstention_share", lambda s: (s.abstained, 1), judges=False),
    AnswerMetric("empty_rate", lambda s: (s.empty, 1), judges=False),
    AnswerMetric("repetition_rate", lambda s: (s.repeated, 1), judges=False),
    AnswerMetric("token_f1", lambda s: (s.token_f1 or 0, s.token_f1 is not None), "text"),
    AnswerMetric("rouge_l", lambda s: (s.rouge_l or 0, s.rouge_l is not None), "text"),
    AnswerMetric("semantic_similarity", lambda s: (s.similarity or 0, s.similarity is not None), "text"),
    AnswerMetric("required_facts_recall", lambda s: (s.facts_stated, s.facts_required), "text"),
    AnswerMetric("forbidden_rate", lambda s: (s.forbidden_stated is True, s.forbidden_stated is not None), "text"),
    AnswerMetric("recall_at_5", lambda s: (s.recall_at_5 or 0, s.recall_at_5 is not None), "passages"),
    AnswerMetric("mrr", lambda s: (s.reciprocal_rank or 0, s.reciprocal_rank is not None), "passages"),
    AnswerMetric("ndcg_at_10", lambda s: (s.ndcg_at_10 or 0, s.ndcg_at_10 is not None), "passages"),
    AnswerMetric("citation_precision", lambda s: (s.citations_right, s.citations), "passages"),
    AnswerMetric("groundedness", lambda s: (s.grounded or 0, s.grounded is not None), "passages", judges=False),
    AnswerMetric("replaced_rate", lambda s: (s.replaced is True, s.replaced is not None), "passages", judges=False),
    AnswerMetric("answer_words", lambda s: (s.words, s.words > 0), "text", judges=False),
)

# the loss of an answer, 0 to 1, by its name in the metric catalog
LOSSES: Mapping[str, Callable[[Score], float]] = {
    "inexact": lambda s: 1.0 - s.exact,
    "token_distance": lambda s: 1.0 - (s.token_f1 or 0.0),
    "semantic_distance": lambda s: 1.0 - (s.similarity or 0.0),
    "missing_facts": lambda s: (
        1.0
        if s.forbidden_stated or (s.should_abstain and not s.abstained)
        else 1.0 - s.facts_stated / s.facts_required
        if s.facts_required
        else 0.0
    ),
    "degenerate": lambda s: float(s.empty or s.repeated or s.grounded == 0),
}


def metric_fractions(score: Score) -> dict[str, tuple[float, float]]:
    """The numerator and denominator that an answer adds to each metric; those of the case's own scorers come last."""
    own = {f"{CUSTOM}{name}": (value, 1.0) for name, value in (score.custom or {}).items()}
    return {metric.name: metric.fraction(score) for metric in METRICS} | own


def loss_of(score: Score, name: str) -> float:
    """The loss of an answer, 0 to 1."""
    if name.startswith(CUSTOM):
        return 1.0 - (score.custom or {})[name.removeprefix(CUSTOM)]
    return LOSSES[name](score)


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
