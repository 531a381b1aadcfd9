"""The splits of instruction pairs: what comes to which side, and that nothing of the evaluation is learned from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.duckdb import quote_identifier
from tasks.core.errors import DataError
from tasks.data.config import Answer, Pairs
from tasks.data.language.feedback import is_log, read_log
from tasks.data.language.near_duplicates import NearDuplicateIndex, normalize
from tasks.data.language.pairs import Pair, PairFormat, read_pairs, resolve
from tasks.data.language.source_tables import read_rows
from tasks.data.language.templates import ORIGIN, generate_pairs, read_facts
from tasks.guard.redaction import redact
from tasks.language.messages import USER, chat_message

if TYPE_CHECKING:
    import duckdb

LEARNED, JUDGED = ("train", "validation"), ("evaluation", "safety")
EVALUATED = 0.1  # share of users' pairs that are held out for the evaluation


class SplitReport:
    """What was done to the pairs."""

    def __init__(self) -> None:
        self.masked: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.exact = self.near = self.like_judged = 0
        self.short: list[str] = []

    def told(self) -> dict[str, object]:
        return {
            "exact duplicates removed": self.exact,
            "near duplicates removed": self.near,
            "training pairs removed for being like one to judge by": self.like_judged,
            "logged answers left out": ", ".join(f"{n} {why}" for why, n in sorted(self.left_out.items())) or "none",
            "personal data masked": ", ".join(f"{n} {kind}" for kind, n in sorted(self.masked.items())) or "none",
            "fewer than asked": "; ".join(self.short) or "none",
        }


def make_splits(
    db: duckdb.DuckDBPyConnection, pairs: Pairs, answer: Answer, as_of: datetime
) -> tuple[dict[str, list[Pair]], SplitReport]:
    """The pairs by split, and what to tell of how they came.

    Raises: CaseError for templates that don't render; DataError for an empty split, or one that leaks.
    """
    form, seen, notes = PairFormat(answer), NearDuplicateIndex(pairs.near_duplicate), SplitReport()
    facts = read_facts(db, pairs.templates) if pairs.templates else {}
    evaluation = generate_pairs("held_out", pairs.evaluation if facts else 0, pairs, form, facts, as_of, seen)
    learned = generate_pairs("train", pairs.train + pairs.validation if facts else 0, pairs, form, facts, as_of, seen)
    notes.short = [*evaluation.short, *learned.short]
    notes.masked += evaluation.masked + learned.masked
    watched = round(len(learned.pairs) * pairs.validation / (pairs.train + pairs.validation))
    splits = {
        "train": learned.pairs[watched:],
        "validation": learned.pairs[:watched],
        "evaluation": evaluation.pairs,
    }
    logged = [(name, read_rows(db, f"FROM {quote_identifier(name)}")) for name in pairs.sources]
    given = [pair for name, rows in logged for pair in _read(name, rows, form, pairs.liked, notes)]
    given = _masked(given, pairs.mask, form, notes)
    given = _drop_duplicates(given, [*learned.pairs, *evaluation.pairs], pairs, notes)
    for name, rows in _split(given, pairs).items():
        splits[name] += rows
    if pairs.safety:
        refused = "" if answer.abstain is None else form.write(answer.abstain)
        splits["safety"] = _masked(_unsafe(db, pairs, refused), pairs.mask, None, notes)
    _drop_like_judged(splits, pairs.near_duplicate, notes)
    if empty := [name for name, rows in splits.items() if not rows]:
        raise DataError(
            f"No pair is left for {', '.join(empty)}.",
            where="pairs",
            found=", ".join(f"{name} {len(rows)}" for name, rows in splits.items()),
            allowed="at least one pair in each split",
            todo="Bring more pairs, or wordings and facts from which they are made.",
        )
    check_leaks(splits, pairs.near_duplicate)
    return splits, notes


def _read(name: str, rows: list[dict[str, Any]], form: PairFormat, liked: float, notes: SplitReport) -> list[Pair]:
    if not rows:  # a log of which nothing is known yet
        return []
    return read_log(name, rows, form, liked, notes.left_out) if is_log(rows) else read_pairs(name, rows, form)


def _masked(given: Sequence[Pair], kinds: Sequence[str], form: PairFormat | None, notes: SplitReport) -> list[Pair]:
    masked = []
    for pair in given:
        covered = [redact(said, kinds) for said in (*(m["content"] for m in pair.messages), pair.answer)]
        rejected, in_rejected = redact(pair.rejected or "", kinds)
        found = sum((of for _, of in covered), in_rejected)
        if found:
            *said, answer = (text for text, _ in covered)
            pair = replace(
                pair,
                messages=tuple({**m, "content": text} for m, text in zip(pair.messages, said, strict=True)),
                answer=answer,
                rejected=None if pair.rejected is None else rejected,
                problem=pair.problem and redact(pair.problem, kinds)[0],
            )
            notes.masked += found
        masked.append(resolve(pair, form) if found and form else pair)
    return masked


def _drop_duplicates(given: Sequence[Pair], before: Sequence[Pair], pairs: Pairs, notes: SplitReport) -> list[Pair]:
    """Keep the first of pairs that are alike and have the same answer; bad ones are left to the quarantine."""
    exact: set[tuple[str, str, str | None]] = set()
    alike: dict[tuple[str, str | None], NearDuplicateIndex] = {}
    kept = []
    for pair in (*before, *given):
        if pair.problem is None:
            same = (normalize(pair.text), pair.answer, pair.rejected)
            near = alike.setdefault(same[1:], NearDuplicateIndex(pairs.near_duplicate))
            if same in exact:
                notes.exact += 1
                continue
            if near.find(pair.text) is not None:
                notes.near += 1
                continue
            exact.add(same)
            near.add(pair.text)
        kept.append(pair)
    return kept[len(before) :]  # none of those is like another


def _split(given: Sequence[Pair], pairs: Pairs) -> dict[str, list[Pair]]:
    """Split users' pairs by hash; messages that are alike, with whatever answers, come to the same side."""
    seen = NearDuplicateIndex(pairs.near_duplicate)
    heads: list[str] = []
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "evaluation": []}
    watched = pairs.validation / (pairs.train + pairs.validation)
    for pair in given:
        if pair.problem:  # goes to the quarantine from there
            splits["train"].append(pair)
            continue
        like = seen.find(pair.text)
        head = normalize(pair.text) if like is None else heads[like]
        seen.add(pair.text)
        heads.append(head)
        place = int.from_bytes(hashlib.sha256(f"{pairs.seed}/{head}".encode()).digest()[:6]) / 2**48
        rest = (place - EVALUATED) / (1 - EVALUATED)
        splits["evaluation" if rest < 0 else "validation" if rest < watched else "train"].append(pair)
    return splits


def _drop_like_judged(splits: dict[str, list[Pair]], at_least: float, notes: SplitReport) -> None:
    """Leave out of what is learned from each pair that is like one to judge by."""
    judged = NearDuplicateIndex(at_least)
    for name in JUDGED:
        for pair in splits.get(name, ()):
            judged.add(pair.text)
    for name in LEARNED:
        kept = [pair for pair in splits[name] if pair.problem or judged.find(pair.text) is None]
        notes.like_judged += len(splits[name]) - len(kept)
        splits[name] = kept


def check_leaks(splits: Mapping[str, Sequence[Pair]], at_least: float) -> None:
    """Make sure that nothing of the evaluation is in what is learned from.

    Raises: DataError naming what both share: a wording, a day of facts, a message or one like it.
    """
    learned = [(name, p) for name in LEARNED for p in splits.get(name, ()) if p.problem is None]
    judged = [(name, p) for name in JUDGED for p in splits.get(name, ()) if p.problem is None]
    leaks = []
    for what, of in (
        ("wording", lambda pair: pair.template),
        ("day", lambda pair: pair.day if pair.origin == ORIGIN else None),
    ):
        both = {of(p) for _, p in learned} & {of(p) for _, p in judged} - {"", None}
        leaks += [f"{what} {value} is in {_tell(learned, of, value)} and {_tell(judged, of, value)}" for value in both]
    seen = NearDuplicateIndex(at_least)
    for _, pair in learned:
        seen.add(pair.text)
    for name, pair in judged:
        if (like := seen.find(pair.text)) is not None:
            where, other = learned[like]
            leaks.append(f"{name} has {pair.text[:80]!r}, {where} {other.text[:80]!r}")
    trained = {p.text for name, p in learned if name == "train"}
    leaks += [
        f"train and validation have {p.text[:80]!r}" for n, p in learned if n == "validation" and p.text in trained
    ]
    if leaks:
        raise DataError(
            f"The evaluation leaks into the training: {len(leaks)} found.",
            where="the splits of the pairs",
            found="".join(f"\n    {sentence}" for sentence in sorted(leaks)[:12]),
            allowed="no wording, day or message on both sides",
            todo="Correct the templates, the SQL of the facts, or what made these files.",
        )


def _tell(side: Sequence[tuple[str, Pair]], of: Callable[[Pair], Any], value: Any) -> str:
    name, pair = next((name, pair) for name, pair in side if of(pair) == value)
    return f"{name} ({pair.text[:60]!r})"


def _unsafe(db: duckdb.DuckDBPyConnection, pairs: Pairs, refused: str) -> list[Pair]:
    name = str(pairs.safety)
    rows = read_rows(db, f"FROM {quote_identifier(name)}")
    if rows and "prompt" not in rows[0]:
        raise DataError(
            f"Source {name} has no unsafe prompts.",
            where="pairs.safety",
            found=f"columns {', '.join(rows[0])}",
            allowed="a column prompt",
            todo="Name the column so in the source's SQL.",
        )
    prompts = sorted({str(row["prompt"]) for row in rows if row["prompt"]}, key=lambda p: digest_of([pairs.seed, p]))
    return [Pair((chat_message(USER, p),), refused, "unsafe", name) for p in prompts[: pairs.unsafe]]
