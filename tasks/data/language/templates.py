"""Generates messages from templates and facts, and checks the templates."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.config import digest_of
from tasks.core.errors import CaseError, DataError
from tasks.data.config import Answer, Intent, Pairs, Templates
from tasks.data.language.near_duplicates import NearDuplicateIndex, normalize
from tasks.data.language.pairs import Pair, PairFormat, error_message, schema_branches
from tasks.data.language.source_tables import read_rows
from tasks.guard.redaction import redact
from tasks.language.messages import USER, chat_message

if TYPE_CHECKING:
    import duckdb

Side = Literal["train", "held_out"]
Fact = dict[str, Any]
PLACEHOLDER = re.compile(r"\{(\w+)\}")
ORIGIN = "templates"
OPENER_SHARE, CLOSER_SHARE = 0.3, 0.2  # of messages
MAX_IDLE_ROUNDS = 100  # rounds through the templates without a new message, after which generation stops


@dataclass(frozen=True)
class GeneratedPairs:
    """The pairs of one side, the intents with fewer pairs than requested, and what was redacted."""

    pairs: list[Pair]
    short: list[str]  # one sentence each
    redacted: Counter[str]  # personal data in the facts, by kind


def check_templates(templates: Templates, answer: Answer, form: PairFormat) -> list[str]:
    """The errors in templates and answers that can be found without facts; one sentence each."""
    problems = []
    for name, intent in templates.intents.items():
        required = _required_placeholders(intent.answer, answer.stated)
        if not intent.train:
            problems.append(f"{name}.train: no template to train on")
        for side, texts in (("train", intent.train), ("held_out", intent.held_out)):
            for text in texts:
                if re.search(r"[{}]", PLACEHOLDER.sub("", text)):
                    problems.append(f"{name}.{side}: a brace that is no {{placeholder}} in {text!r}")
                elif not text.strip():
                    problems.append(f"{name}.{side}: an empty template")
                elif missing := sorted(required - set(PLACEHOLDER.findall(text))):
                    names = "}, {".join(missing)
                    problems.append(f"{name}.{side}: the answer needs {{{names}}}, which {text!r} lacks")
        if unmet := [error for error in form.errors(intent.answer) if not _concerns_placeholder(error)]:
            problems.append(f"{name}.answer breaks the schema: {error_message(unmet[0])}")
    sides: dict[Side, list[str]] = {"train": [], "held_out": []}
    for intent in templates.intents.values():
        sides["train"] += intent.train
        sides["held_out"] += intent.held_out
    problems += _shared("a template", sides)
    problems += _shared("an opener", templates.openers)
    return problems + _shared("a closer", templates.closers)


def _shared(what: str, sides: Mapping[Side, Sequence[str]]) -> list[str]:
    training = {normalize(text) for text in sides.get("train", ())}
    both = [text for text in sides.get("held_out", ()) if normalize(text) in training]
    return [f"{what} is both train and held_out: {text!r}" for text in both]


def _required_placeholders(value: Any, stated: Sequence[str], key: str = "") -> set[str]:
    """Placeholders of an answer that the message must have: those of stated keys, or of all when none is stated."""
    if isinstance(value, dict):
        return set().union(*(_required_placeholders(each, stated, name) for name, each in value.items()))
    if isinstance(value, list):
        return set().union(*(_required_placeholders(each, stated, key) for each in value))
    return set(PLACEHOLDER.findall(value)) if isinstance(value, str) and (key in stated or not stated) else set()


def _concerns_placeholder(error: Any) -> bool:
    """Whether an error is only about a placeholder, which a fact may correct."""
    if not error.context:
        return isinstance(error.instance, str) and bool(PLACEHOLDER.search(error.instance))
    return any(all(map(_concerns_placeholder, branch)) for branch in schema_branches(error))


def read_facts(db: duckdb.DuckDBPyConnection, templates: Templates) -> dict[str, list[Fact]]:
    """The facts of each intent, in an order that depends only on the facts; rows with nulls are skipped.

    Raises: CaseError naming all SQL that does not run, and all placeholders without a column.
    """
    import duckdb

    read: dict[str, list[Fact]] = {}
    facts, problems = {}, []
    for name, intent in templates.intents.items():
        where = f"{name}.facts"
        if intent.facts not in read:
            try:
                rows = read_rows(db, f"SELECT * FROM (\n{intent.facts}\n) ORDER BY ALL")
            except duckdb.Error as error:
                problems.append(f"{where}: {str(error).strip().splitlines()[0]}")
                continue
            read[intent.facts] = [row for row in rows if None not in row.values()]
        facts[name] = read[intent.facts]
        if not facts[name]:
            problems.append(f"{where}: no row without nulls")
            continue
        first = facts[name][0]
        if "day" in first and not isinstance(first["day"], date):
            problems.append(f"{where}: day is {type(first['day']).__name__}, not a date")
        used = {p for text in (*intent.train, *intent.held_out) for p in PLACEHOLDER.findall(text)}
        if unknown := sorted((used | _required_placeholders(intent.answer, ())) - set(first)):
            problems.append(f"{where}: no column for {{{'}, {'.join(unknown)}}}; there are: {', '.join(first)}")
    if problems:
        raise CaseError(
            "The templates do not render.",
            where="pairs.templates.intents",
            found="".join(f"\n    {sentence}" for sentence in problems),
            todo="Correct the SQL, or the placeholders.",
        )
    return facts


def facts_of_side(facts: Mapping[str, list[Fact]], side: Side, pairs: Pairs, as_of: datetime) -> dict[str, list[Fact]]:
    """The facts of the days of one side, by intent.

    Raises: DataError when an intent has no facts on this side.
    """
    first_held_out = (as_of - pairs.held_out_days).date()
    selected = {name: _select(rows, side, first_held_out) for name, rows in facts.items()}
    if without := [name for name, rows in selected.items() if not rows]:
        raise DataError(
            f"There are no facts for {', '.join(without)}.",
            where=f"pairs.templates, {side}",
            found=f"no day {'before' if side == 'train' else 'from'} {first_held_out}",
            allowed="days on both sides of held_out_days before the as-of",
            todo="Use another as-of, or change pairs.held_out_days.",
        )
    return selected


def generate_pairs(
    side: Side,
    count: int,
    pairs: Pairs,
    *,
    form: PairFormat,
    facts: Mapping[str, list[Fact]],
    seen: NearDuplicateIndex,
) -> GeneratedPairs:
    """Generate `count` pairs of one side from its templates, openers, closers and facts.

    No two messages are near duplicates, nor is one in `seen`, to which they are added. Raises: CaseError naming all
    intents whose answers break the schema or state values that the message lacks.
    """
    templates = pairs.templates
    if templates is None:
        return GeneratedPairs([], [], Counter())
    generated, short, problems = [], [], []
    redacted: Counter[str] = Counter()
    for (name, intent), quota in zip(templates.intents.items(), _quotas(templates, count), strict=True):
        generator = PairGenerator(name, intent, templates, side, form, random.Random(f"{pairs.seed}/{side}/{name}"))
        of_intent = generator.generate_pairs(quota, facts[name], pairs.mask, seen)
        redacted += generator.redacted
        if len(of_intent) < quota:
            short.append(
                f"{name}, {side}: {len(of_intent)} of {quota} pairs; add templates, facts, openers or closers."
            )
        problems += [f"{name}: {pair.problem}" for pair in of_intent if pair.problem][:1]
        generated += of_intent
    if problems:
        raise CaseError(
            "The answers of the templates do not fit their messages.",
            where="pairs.templates.intents",
            found="".join(f"\n    {sentence}" for sentence in problems),
            todo="Correct the answers, the facts' SQL, or answer.json_schema.",
        )
    random.Random(f"{pairs.seed}/{side}").shuffle(generated)
    return GeneratedPairs(generated, short, redacted)


def _select(rows: list[Fact], side: Side, first_held_out: date) -> list[Fact]:
    if not rows or "day" not in rows[0]:
        return rows
    return [row for row in rows if (day_of(row["day"]) >= first_held_out) == (side == "held_out")]


def day_of(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value


def _quotas(templates: Templates, count: int) -> list[int]:
    """The number of pairs of each intent, rounded so that they add up."""
    shares = [intent.share for intent in templates.intents.values()]
    ends = [round(count * end / sum(shares)) for end in itertools.accumulate(shares)]
    return [end - start for start, end in itertools.pairwise([0, *ends])]


@dataclass
class PairGenerator:
    """Generates the pairs of one intent."""

    name: str
    intent: Intent
    templates: Templates
    side: Side
    form: PairFormat
    random: random.Random
    redacted: Counter[str] = field(default_factory=Counter)

    def generate_pairs(
        self, count: int, facts: list[Fact], redact_kinds: Sequence[str], seen: NearDuplicateIndex
    ) -> list[Pair]:
        templates = self.intent.train if self.side == "train" else self.intent.held_out
        shuffled = itertools.cycle(self.random.sample(facts, len(facts)))  # all facts before one is used again
        generated: list[Pair] = []
        idle = 0
        while len(generated) < count and idle < MAX_IDLE_ROUNDS:
            before = len(generated)
            for template in self.random.sample(templates, len(templates)):
                fact, counts = _redact(next(shuffled), redact_kinds)
                text = self.render(template, fact)
                if len(generated) < count and seen.find(text) is None:
                    seen.add(text)
                    generated.append(self.pair(template, text, fact))
                    self.redacted += counts
            idle = 0 if len(generated) > before else idle + 1
        return generated

    def pair(self, template: str, text: str, fact: Fact) -> Pair:
        answer = _fill(self.intent.answer, fact)
        return Pair(
            messages=(chat_message(USER, text),),
            answer=self.form.write(answer),
            intent=self.name,
            origin=ORIGIN,
            template=f"{self.name}-{digest_of(normalize(template))[:8]}",
            day=day_of(fact["day"]) if "day" in fact else None,
            problem=self.form.problem(answer, text),
        )

    def render(self, template: str, fact: Fact) -> str:
        """A message; parts at odd places are facts, which get no typing error."""
        parts = PLACEHOLDER.split(template)
        parts[1::2] = [str(fact[column]) for column in parts[1::2]]
        if (openers := self.templates.openers.get(self.side)) and self.random.random() < OPENER_SHARE:
            parts[0] = f"{self.random.choice(openers)} {parts[0]}"
        if (closers := self.templates.closers.get(self.side)) and self.random.random() < CLOSER_SHARE:
            parts[-1] = f"{parts[-1]} {self.random.choice(closers)}"
        if self.random.random() < self.templates.typos:
            add_typo(parts, self.random)
        return "".join(parts)


def _redact(fact: Fact, kinds: Sequence[str]) -> tuple[Fact, Counter[str]]:
    """A fact without personal data: so message and answer contain the same placeholder."""
    counts: Counter[str] = Counter()
    redacted = dict(fact)
    for column, value in fact.items():
        if isinstance(value, str):
            redacted[column], of_value = redact(value, kinds)
            counts += of_value
    return redacted, counts


def add_typo(parts: list[str], rng: random.Random) -> None:
    """Swap, drop or double one letter of a word of four or more letters, not the first."""
    words = [
        (at, match.start(), match.end())
        for at in range(0, len(parts), 2)
        for match in re.finditer(r"[^\W\d_]{4,}", parts[at])
    ]
    if not words:
        return
    at, start, end = rng.choice(words)
    place, text = rng.randrange(start + 1, end - 1), parts[at]
    edit: Callable[[str], str] = rng.choice((lambda two: two[::-1], lambda two: two[1:], lambda two: two[0] + two))
    parts[at] = text[:place] + edit(text[place : place + 2]) + text[place + 2 :]


def _fill(value: Any, fact: Fact) -> Any:
    """An answer with facts in place of placeholders; a placeholder alone is replaced by a number as a number."""
    if isinstance(value, dict):
        return {key: _fill(each, fact) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, fact) for each in value]
    if not isinstance(value, str):
        return value
    if (alone := PLACEHOLDER.fullmatch(value)) and isinstance(fact[alone[1]], bool | int | float):
        return fact[alone[1]]
    return PLACEHOLDER.sub(lambda match: str(fact[match[1]]), value)
