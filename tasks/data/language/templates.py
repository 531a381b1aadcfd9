"""Messages made from wordings and facts, and what can be wrong with wordings."""

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
OPENED, CLOSED = 0.3, 0.2  # shares of messages with an opener and with a closer
TRIES = 100  # rounds through the wordings without a new message, after which there are no more


@dataclass(frozen=True)
class GeneratedPairs:
    """The pairs of one side, of which intents there are fewer than asked for, and what was masked."""

    pairs: list[Pair]
    short: list[str]  # one sentence each
    masked: Counter[str]  # personal data in the facts, by kind


def check_templates(templates: Templates, answer: Answer, form: PairFormat) -> list[str]:
    """What is wrong with wordings and answers, as far as it can be said without facts; one sentence each."""
    said = []
    for name, intent in templates.intents.items():
        needed = _needed(intent.answer, answer.stated)
        if not intent.train:
            said.append(f"{name}.train: no wording to learn from")
        for side, wordings in (("train", intent.train), ("held_out", intent.held_out)):
            for wording in wordings:
                if re.search(r"[{}]", PLACEHOLDER.sub("", wording)):
                    said.append(f"{name}.{side}: a brace that is no {{placeholder}} in {wording!r}")
                elif not wording.strip():
                    said.append(f"{name}.{side}: an empty wording")
                elif lacking := sorted(needed - set(PLACEHOLDER.findall(wording))):
                    said.append(f"{name}.{side}: the answer needs {{{'}, {'.join(lacking)}}}, not said in {wording!r}")
        if unmet := [error for error in form.errors(intent.answer) if not _may_hold(error)]:
            said.append(f"{name}.answer breaks the schema: {error_message(unmet[0])}")
    sides: dict[Side, list[str]] = {"train": [], "held_out": []}
    for intent in templates.intents.values():
        sides["train"] += intent.train
        sides["held_out"] += intent.held_out
    said += _shared("a wording", sides)
    said += _shared("an opener", templates.openers)
    return said + _shared("a closer", templates.closers)


def _shared(what: str, sides: Mapping[Side, Sequence[str]]) -> list[str]:
    learned = {normalize(text) for text in sides.get("train", ())}
    both = [text for text in sides.get("held_out", ()) if normalize(text) in learned]
    return [f"{what} is both train and held_out: {text!r}" for text in both]


def _needed(value: Any, stated: Sequence[str], key: str = "") -> set[str]:
    """Placeholders of an answer that the message must have: those of stated keys, or of all when none is stated."""
    if isinstance(value, dict):
        return set().union(*(_needed(each, stated, name) for name, each in value.items()))
    if isinstance(value, list):
        return set().union(*(_needed(each, stated, key) for each in value))
    return set(PLACEHOLDER.findall(value)) if isinstance(value, str) and (key in stated or not stated) else set()


def _may_hold(error: Any) -> bool:
    """Whether an error is only about a placeholder, which a fact may put right."""
    if not error.context:
        return isinstance(error.instance, str) and bool(PLACEHOLDER.search(error.instance))
    return any(all(map(_may_hold, branch)) for branch in schema_branches(error))


def read_facts(db: duckdb.DuckDBPyConnection, templates: Templates) -> dict[str, list[Fact]]:
    """The facts of each intent, in an order that depends on nothing but them; rows with gaps are left out.

    Raises: CaseError naming at once all SQL that does not run, and all placeholders that no column fills.
    """
    import duckdb

    read: dict[str, list[Fact]] = {}
    facts, wrong = {}, []
    for name, intent in templates.intents.items():
        where = f"{name}.facts"
        if intent.facts not in read:
            try:
                rows = read_rows(db, f"SELECT * FROM (\n{intent.facts}\n) ORDER BY ALL")
            except duckdb.Error as error:
                wrong.append(f"{where}: {str(error).strip().splitlines()[0]}")
                continue
            read[intent.facts] = [row for row in rows if None not in row.values()]
        facts[name] = read[intent.facts]
        if not facts[name]:
            wrong.append(f"{where}: no row without gaps")
            continue
        first = facts[name][0]
        if "day" in first and not isinstance(first["day"], date):
            wrong.append(f"{where}: day is {type(first['day']).__name__}, not a date")
        used = {p for text in (*intent.train, *intent.held_out) for p in PLACEHOLDER.findall(text)}
        if unknown := sorted((used | _needed(intent.answer, ())) - set(first)):
            wrong.append(f"{where}: no column for {{{'}, {'.join(unknown)}}}; there are: {', '.join(first)}")
    if wrong:
        raise CaseError(
            "The templates do not render.",
            where="pairs.templates.intents",
            found="".join(f"\n    {sentence}" for sentence in wrong),
            todo="Correct the SQL, or the placeholders.",
        )
    return facts


def generate_pairs(
    side: Side,
    wanted: int,
    pairs: Pairs,
    form: PairFormat,
    facts: Mapping[str, list[Fact]],
    as_of: datetime,
    seen: NearDuplicateIndex,
) -> GeneratedPairs:
    """Make `wanted` pairs of one side: its wordings, openers and closers, and the facts of its days.

    No two messages are alike, nor like one in `seen`, to which they are added. Raises: DataError when an intent has no
    facts on this side; CaseError naming all intents whose answers break the schema or say what the message does not.
    """
    templates = pairs.templates
    if templates is None:
        return GeneratedPairs([], [], Counter())
    first_held_out = (as_of - pairs.held_out_days).date()
    mine = {name: _of_side(rows, side, first_held_out) for name, rows in facts.items()}
    if without := [name for name, rows in mine.items() if not rows]:
        raise DataError(
            f"There are no facts for {', '.join(without)}.",
            where=f"pairs.templates, {side}",
            found=f"no day {'before' if side == 'train' else 'from'} {first_held_out}",
            allowed="days on both sides of held_out_days before the as-of",
            todo="Take another as-of, or change pairs.held_out_days.",
        )
    made, short, wrong = [], [], []
    masked: Counter[str] = Counter()
    for (name, intent), count in zip(templates.intents.items(), _share(templates, wanted), strict=True):
        maker = PairGenerator(name, intent, templates, side, form, random.Random(f"{pairs.seed}/{side}/{name}"))
        found = maker.generate_pairs(count, mine[name], pairs.mask, seen)
        masked += maker.masked
        if len(found) < count:
            short.append(f"{name}, {side}: {len(found)} of {count} pairs; add wordings, facts, openers or closers.")
        wrong += [f"{name}: {pair.problem}" for pair in found if pair.problem][:1]
        made += found
    if wrong:
        raise CaseError(
            "The answers of the templates are not right for their messages.",
            where="pairs.templates.intents",
            found="".join(f"\n    {sentence}" for sentence in wrong),
            todo="Correct the answers, the facts' SQL, or answer.json_schema.",
        )
    random.Random(f"{pairs.seed}/{side}").shuffle(made)
    return GeneratedPairs(made, short, masked)


def _of_side(rows: list[Fact], side: Side, first_held_out: date) -> list[Fact]:
    if not rows or "day" not in rows[0]:
        return rows
    return [row for row in rows if (day_of(row["day"]) >= first_held_out) == (side == "held_out")]


def day_of(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value


def _share(templates: Templates, wanted: int) -> list[int]:
    """How many pairs each intent gets: rounded so that they add up."""
    shares = [intent.share for intent in templates.intents.values()]
    ends = [round(wanted * end / sum(shares)) for end in itertools.accumulate(shares)]
    return [end - start for start, end in itertools.pairwise([0, *ends])]


@dataclass
class PairGenerator:
    """Makes the pairs of one intent."""

    name: str
    intent: Intent
    templates: Templates
    side: Side
    form: PairFormat
    random: random.Random
    masked: Counter[str] = field(default_factory=Counter)

    def generate_pairs(
        self, count: int, facts: list[Fact], mask_kinds: Sequence[str], seen: NearDuplicateIndex
    ) -> list[Pair]:
        wordings = self.intent.train if self.side == "train" else self.intent.held_out
        deck = itertools.cycle(self.random.sample(facts, len(facts)))  # all facts before one comes again
        made: list[Pair] = []
        idle = 0
        while len(made) < count and idle < TRIES:
            before = len(made)
            for wording in self.random.sample(wordings, len(wordings)):
                fact, found = _mask(next(deck), mask_kinds)
                text = self.say(wording, fact)
                if len(made) < count and seen.find(text) is None:
                    seen.add(text)
                    made.append(self.pair(wording, text, fact))
                    self.masked += found
            idle = 0 if len(made) > before else idle + 1
        return made

    def pair(self, wording: str, text: str, fact: Fact) -> Pair:
        answer = _fill(self.intent.answer, fact)
        return Pair(
            messages=(chat_message(USER, text),),
            answer=self.form.write(answer),
            intent=self.name,
            origin=ORIGIN,
            template=f"{self.name}-{digest_of(normalize(wording))[:8]}",
            day=day_of(fact["day"]) if "day" in fact else None,
            problem=self.form.problem(answer, text),
        )

    def say(self, wording: str, fact: Fact) -> str:
        """A message; parts at odd places are facts, and no typing error touches them."""
        parts = PLACEHOLDER.split(wording)
        parts[1::2] = [str(fact[column]) for column in parts[1::2]]
        if (openers := self.templates.openers.get(self.side)) and self.random.random() < OPENED:
            parts[0] = f"{self.random.choice(openers)} {parts[0]}"
        if (closers := self.templates.closers.get(self.side)) and self.random.random() < CLOSED:
            parts[-1] = f"{parts[-1]} {self.random.choice(closers)}"
        if self.random.random() < self.templates.typos:
            _mistype(parts, self.random)
        return "".join(parts)


def _mask(fact: Fact, kinds: Sequence[str]) -> tuple[Fact, Counter[str]]:
    """A fact without personal data: so message and answer name the same placeholder."""
    found: Counter[str] = Counter()
    masked = dict(fact)
    for column, value in fact.items():
        if isinstance(value, str):
            masked[column], of_value = redact(value, kinds)
            found += of_value
    return masked, found


def _mistype(parts: list[str], chance: random.Random) -> None:
    """Swap, drop or double one letter of a word of four or more, not the first."""
    words = [
        (at, match.start(), match.end())
        for at in range(0, len(parts), 2)
        for match in re.finditer(r"[^\W\d_]{4,}", parts[at])
    ]
    if not words:
        return
    at, start, end = chance.choice(words)
    place, text = chance.randrange(start + 1, end - 1), parts[at]
    edit: Callable[[str], str] = chance.choice((lambda two: two[::-1], lambda two: two[1:], lambda two: two[0] + two))
    parts[at] = text[:place] + edit(text[place : place + 2]) + text[place + 2 :]


def _fill(value: Any, fact: Fact) -> Any:
    """An answer with facts in place of placeholders; numbers that stand alone stay numbers."""
    if isinstance(value, dict):
        return {key: _fill(each, fact) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, fact) for each in value]
    if not isinstance(value, str):
        return value
    if (alone := PLACEHOLDER.fullmatch(value)) and isinstance(fact[alone[1]], bool | int | float):
        return fact[alone[1]]
    return PLACEHOLDER.sub(lambda match: str(fact[match[1]]), value)
