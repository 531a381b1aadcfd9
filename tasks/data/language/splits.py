"""Splits instruction pairs, and checks that the training splits share nothing with the evaluation splits."""

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
from tasks.data.language.templates import ORIGIN, facts_of_side, generate_pairs, read_facts
from tasks.guard.redaction import redact
from tasks.language.messages import USER, chat_message

if TYPE_CHECKING:
    import duckdb

DEVELOPMENT = "development"  # questions on documents, by which retrieval is adjusted; neither trained on nor evaluated
TRAINING, EVALUATION = ("train", "validation", DEVELOPMENT), ("evaluation", "safety")
EVALUATION_SHARE = 0.1  # of users' pairs
UNTUNED_EVALUATION_SHARE = 0.75  # where no pair is trained on; the rest are examples to develop a prompt with


class SplitReport:
    """What was done to the pairs."""

    def __init__(self) -> None:
        self.redacted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.exact = self.near = self.contaminated = 0
        self.contradicted = self.systems = 0
        self.short: list[str] = []

    def summary(self) -> dict[str, object]:
        return {
            "exact duplicates removed": self.exact,
            "near duplicates removed": self.near,
            "training pairs removed as duplicates of evaluation pairs": self.contaminated,
            "messages with several answers": self.contradicted,
            "system messages replaced by the case's prompt": self.systems,
            "logged answers skipped": ", ".join(f"{n} {why}" for why, n in sorted(self.skipped.items())) or "none",
            "personal data masked": ", ".join(f"{n} {kind}" for kind, n in sorted(self.redacted.items())) or "none",
            "fewer than requested": "; ".join(self.short) or "none",
        }


def make_splits(
    db: duckdb.DuckDBPyConnection,
    pairs: Pairs,
    answer: Answer,
    as_of: datetime,
    *,
    tuned: bool = True,
    unlabelled: Sequence[Pair] = (),
) -> tuple[dict[str, list[Pair]], SplitReport]:
    """The pairs by split, and a report of how they were made. `unlabelled` pairs, without right answers, evaluate.

    Raises: CaseError for templates that don't render; DataError for an empty split, or one that leaks.
    """
    form, seen, report = PairFormat(answer), NearDuplicateIndex(pairs.near_duplicate), SplitReport()
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "evaluation": [], DEVELOPMENT: []}
    if pairs.templates:
        facts = read_facts(db, pairs.templates)
        evaluation_facts = facts_of_side(facts, "held_out", pairs, as_of)
        evaluation = generate_pairs("held_out", pairs.evaluation, pairs, form=form, facts=evaluation_facts, seen=seen)
        training_facts, count = facts_of_side(facts, "train", pairs, as_of), pairs.train + pairs.validation
        training = generate_pairs("train", count, pairs, form=form, facts=training_facts, seen=seen)
        report.short = [*evaluation.short, *training.short]
        report.redacted += evaluation.redacted + training.redacted
        validation = round(len(training.pairs) * pairs.validation / count)
        splits["train"] += training.pairs[validation:]
        splits["validation"] += training.pairs[:validation]
        splits["evaluation"] += evaluation.pairs
    sources = [(name, read_rows(db, f"FROM {quote_identifier(name)}")) for name in pairs.sources]
    users = [pair for name, rows in sources for pair in _read(name, rows, form, pairs.liked, report)]
    users = _redact(users, pairs.mask, form, report)
    generated = [*splits["train"], *splits["validation"], *splits["evaluation"]]
    for name, rows in _split(_drop_duplicates(users, generated, pairs, report), pairs, tuned).items():
        splits[name] += rows
    splits["evaluation"] += _redact(unlabelled, pairs.mask, None, report)
    if pairs.safety:
        abstention = "" if answer.abstain is None else form.write(answer.abstain)
        splits["safety"] = _redact(_unsafe(db, pairs, abstention), pairs.mask, None, report)
    _drop_contaminated(splits, pairs.near_duplicate, report)
    required = [name for name in splits if name != DEVELOPMENT] if tuned else EVALUATION
    if empty := [name for name, rows in splits.items() if name in required and not rows]:
        raise DataError(
            f"No pair is left for {', '.join(empty)}.",
            where="pairs",
            found=", ".join(f"{name} {len(rows)}" for name, rows in splits.items()),
            allowed="at least one pair in each split",
            todo="Provide more pairs, or more templates and facts to generate them from.",
        )
    splits = {name: rows for name, rows in splits.items() if rows}
    check_leaks(splits, pairs.near_duplicate)
    return splits, report


def _read(name: str, rows: list[dict[str, Any]], form: PairFormat, liked: float, report: SplitReport) -> list[Pair]:
    if not rows:  # a log without requests
        return []
    if is_log(rows):
        return read_log(name, rows, form, liked=liked, skipped=report.skipped)
    return read_pairs(name, rows, form)


def _redact(pairs: Sequence[Pair], kinds: Sequence[str], form: PairFormat | None, report: SplitReport) -> list[Pair]:
    redacted = []
    for pair in pairs:
        texts = [redact(text, kinds) for text in (*(m["content"] for m in pair.messages), pair.answer)]
        rejected, in_rejected = redact(pair.rejected or "", kinds)
        counts = sum((count for _, count in texts), in_rejected)
        if counts:
            *contents, answer = (text for text, _ in texts)
            pair = replace(
                pair,
                messages=tuple({**m, "content": text} for m, text in zip(pair.messages, contents, strict=True)),
                answer=answer,
                rejected=None if pair.rejected is None else rejected,
                problem=pair.problem and redact(pair.problem, kinds)[0],
            )
            report.redacted += counts
        redacted.append(resolve(pair, form) if counts and form else pair)
    return redacted


def _drop_duplicates(users: Sequence[Pair], generated: Sequence[Pair], pairs: Pairs, report: SplitReport) -> list[Pair]:
    """The users' pairs without near duplicates that have the same answer; invalid ones go on to the quarantine."""
    exact: set[tuple[str, str, str | None]] = set()
    indexes: dict[tuple[str, str | None], NearDuplicateIndex] = {}
    unique = []
    for pair in (*generated, *users):
        if pair.problem is None:
            same = (normalize(pair.text), pair.answer, pair.rejected)
            index = indexes.setdefault(same[1:], NearDuplicateIndex(pairs.near_duplicate))
            if same in exact:
                report.exact += 1
                continue
            if index.find(pair.text) is not None:
                report.near += 1
                continue
            exact.add(same)
            index.add(pair.text)
        unique.append(pair)
    users = unique[len(generated) :]  # generated pairs have no duplicates
    answers: dict[str, set[str]] = {}
    for pair in users:
        if pair.problem is None:
            answers.setdefault(normalize(pair.text), set()).add(pair.answer)
    report.contradicted = sum(len(different) > 1 for different in answers.values())
    report.systems = sum(bool(pair.system) for pair in users if pair.problem is None)
    return users


def _split(users: Sequence[Pair], pairs: Pairs, tuned: bool) -> dict[str, list[Pair]]:
    """Split users' pairs by their `part`, else by hash; then near duplicates, whatever their answers, stay together."""
    share = EVALUATION_SHARE if tuned else UNTUNED_EVALUATION_SHARE
    seen = NearDuplicateIndex(pairs.near_duplicate)
    heads: list[str] = []
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "evaluation": [], DEVELOPMENT: []}
    validation_share = pairs.validation / (pairs.train + pairs.validation)
    for pair in users:
        if pair.problem:  # quarantined later
            splits["train"].append(pair)
            continue
        if pair.part:
            splits[pair.part].append(pair)
            continue
        if tuned and not pair.answer:  # only facts: nothing to learn an answer from
            splits["evaluation"].append(pair)
            continue
        like = seen.find(pair.text)
        head = normalize(pair.text) if like is None else heads[like]
        seen.add(pair.text)
        heads.append(head)
        place = int.from_bytes(hashlib.sha256(f"{pairs.seed}/{head}".encode()).digest()[:6]) / 2**48
        rest = (place - share) / (1 - share)
        splits["evaluation" if rest < 0 else "validation" if rest < validation_share else "train"].append(pair)
    return splits


def _drop_contaminated(splits: dict[str, list[Pair]], threshold: float, report: SplitReport) -> None:
    """Remove training pairs that are near duplicates of evaluation pairs."""
    evaluation = NearDuplicateIndex(threshold)
    for name in EVALUATION:
        for pair in splits.get(name, ()):
            evaluation.add(pair.text)
    for name in TRAINING:
        clean = [pair for pair in splits.get(name, ()) if pair.problem or evaluation.find(pair.text) is None]
        report.contaminated += len(splits.get(name, ())) - len(clean)
        splits[name] = clean


def check_leaks(splits: Mapping[str, Sequence[Pair]], threshold: float) -> None:
    """Check that the training splits contain nothing of the evaluation splits.

    Raises: DataError naming what both share: a template, a day of facts, a message or a near duplicate.
    """
    training = [(name, p) for name in TRAINING for p in splits.get(name, ()) if p.problem is None]
    evaluation = [(name, p) for name in EVALUATION for p in splits.get(name, ()) if p.problem is None]
    leaks = []
    keys: dict[str, Callable[[Pair], Any]] = {
        "template": lambda pair: pair.template,
        "day": lambda pair: pair.day if pair.origin == ORIGIN else None,
    }
    for what, key in keys.items():
        shared = {key(p) for _, p in training} & {key(p) for _, p in evaluation} - {"", None}
        leaks += [
            f"{what} {value} is in {_example(training, key, value)} and {_example(evaluation, key, value)}"
            for value in shared
        ]
    seen = NearDuplicateIndex(threshold)
    for _, pair in training:
        seen.add(pair.text)
    for name, pair in evaluation:
        if (like := seen.find(pair.text)) is not None:
            where, other = training[like]
            leaks.append(f"{name} has {pair.text[:80]!r}, {where} {other.text[:80]!r}")
    trained = {p.text for name, p in training if name == "train"}
    leaks += [
        f"train and validation have {p.text[:80]!r}" for n, p in training if n == "validation" and p.text in trained
    ]
    if leaks:
        raise DataError(
            f"The evaluation leaks into the training: {len(leaks)} found.",
            where="the splits of the pairs",
            found="".join(f"\n    {sentence}" for sentence in sorted(leaks)[:12]),
            allowed="no template, day or message on both sides",
            todo="Correct the templates, the SQL of the facts, or the source of the pairs.",
        )


def _example(side: Sequence[tuple[str, Pair]], key: Callable[[Pair], Any], value: Any) -> str:
    name, pair = next((name, pair) for name, pair in side if key(pair) == value)
    return f"{name} ({pair.text[:60]!r})"


def _unsafe(db: duckdb.DuckDBPyConnection, pairs: Pairs, abstention: str) -> list[Pair]:
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
    return [Pair((chat_message(USER, p),), abstention, "unsafe", name) for p in prompts[: pairs.unsafe]]
