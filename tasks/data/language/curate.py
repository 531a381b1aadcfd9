"""Curate instruction pairs: made or read, masked, freed of duplicates, split, and validated like any source."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError, DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder
from tasks.core.progress import mark_cached
from tasks.data.config import Answer, ChatSpec, Expectation, Pairs, Source
from tasks.data.language.data_card import write_card
from tasks.data.language.pairs import Pair, PairFormat, write_pairs
from tasks.data.language.source_tables import source_tables
from tasks.data.language.splits import make_splits
from tasks.data.language.templates import check_templates
from tasks.data.results import BaseModelFiles, ValidatedBatches, Validation
from tasks.data.tabular.validate import validate

NAME = "pairs"  # as a source is called
MARKS = 8  # tokens that a chat template puts around a message, at most
Count = Callable[[Sequence[str]], list[int]]


def check_pairs(pairs: Pairs, answer: Answer, sources: Mapping[str, Source]) -> None:
    """Say what is wrong with a case's pairs as far as it can be said without data.

    Raises: CaseError naming all of it.
    """
    form = PairFormat(answer)
    wrong = []
    if answer.abstain is not None and (problem := form.problem(answer.abstain)):
        wrong.append(f"answer.abstain: {problem}")
    if unknown := sorted({*pairs.sources, *([pairs.safety] if pairs.safety else [])} - set(sources)):
        wrong.append(f"no source is called {', '.join(unknown)}; there are: {', '.join(sources)}")
    if pairs.templates:
        wrong += [f"templates.{said}" for said in check_templates(pairs.templates, answer, form)]
    if wrong:
        raise CaseError(
            f"The pairs of the case are not valid: {len(wrong)} to correct.",
            where="pairs",
            found="".join(f"\n    {sentence}" for sentence in wrong),
            todo="Correct these in case.yaml, or in the files that it names.",
        )


def curate(
    case: str,
    pairs: Pairs,
    talk: ChatSpec,
    base: BaseModelFiles,
    sources: dict[str, Source],
    checked: list[ValidatedBatches],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """Give the splits of a case's instruction pairs, as Parquet; equal inputs give equal files, made once.

    checked: the validated batches of the sources, which the SQL of the templates runs over.
    Raises: CaseError for templates that don't render; DataError for pairs that leak, are too long, or fail validation.
    """
    answer, context, system = talk.answer, talk.context, talk.prompt.system
    check_pairs(pairs, answer, sources)
    inputs = {c.source: {name: file_digest(path) for name, path in sorted(c.files.items())} for c in checked}
    tokenizer = base.folder / "tokenizer.json"
    first_held_out = (as_of - pairs.held_out_days).date().isoformat()  # all that depends on the as-of itself
    asked = [pairs.digest, answer.digest, system, file_digest(tokenizer), context, first_held_out]
    home = state / NAME / case / cache_key(__name__, [inputs, *asked])[:20]
    with contextlib.suppress(OSError, ValueError):
        kept = ValidatedBatches.model_validate_json((home / "checked.json").read_text(encoding="utf-8"))
        if all(path.is_file() for path in kept.files.values()):
            mark_cached()
            return kept
    with source_tables({source.source: list(source.files.values()) for source in checked}) as db:
        splits, notes = make_splits(db, pairs, answer, as_of)
    splits = _measure(splits, system, _counter(tokenizer), context)
    with scratch_folder(state / NAME / case) as folder:
        work = Path(folder)
        validation = _validate(case, splits, pairs, context, as_of, state, work)
        validation = validation.model_copy(update={"warnings": [*validation.warnings, *notes.short]})
        shutil.rmtree(home, ignore_errors=True)  # of an earlier try, damaged since
        with atomic_path(home) as out:
            out.mkdir()
            for name in splits:
                _drop_problem(work / "clean" / f"{name}.parquet", out / f"{name}.parquet")
            left = {name: _without(rows, validation) for name, rows in splits.items()}
            about = {"case": case, "as_of": f"{as_of:%Y-%m-%d %H:%M} UTC", "base": base.source, "context": context}
            write_card(out / "card.md", about, left, inputs, notes.told(), validation)
            result = ValidatedBatches(
                source=NAME,
                files={name: home / f"{name}.parquet" for name in splits},
                rows=sum(map(len, left.values())),
                quarantined=sum(validation.quarantined.values()),
                validation=validation,
            )
            (out / "checked.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return result


def _measure(splits: dict[str, list[Pair]], system: str, count: Count, context: int) -> dict[str, list[Pair]]:
    """The splits with the tokens of each pair: system prompt, messages, answer and the marks around them."""
    of_system = count([system])[0]
    measured = {}
    for name, rows in splits.items():
        parts = [[message["content"] for message in pair.messages] + [pair.answer] for pair in rows]
        counts = iter(count([part for of_pair in parts for part in of_pair]))
        sums = [sum(next(counts) + MARKS for _ in of_pair) + of_system + MARKS for of_pair in parts]
        measured[name] = [replace(pair, tokens=tokens) for pair, tokens in zip(rows, sums, strict=True)]
    everything = [(name, pair) for name, rows in measured.items() for pair in rows]
    if too_long := [(name, pair) for name, pair in everything if pair.tokens > context]:
        name, longest = max(too_long, key=lambda found: found[1].tokens)
        raise DataError(
            f"{len(too_long)} pairs are longer than the context.",
            where=f"the longest is in {name}: {longest.text[:100]!r}",
            found=f"{longest.tokens} tokens with system prompt and answer",
            allowed=f"{context} tokens (model.context)",
            todo="Shorten the pairs or leave them out, or raise model.context if the base model allows.",
        )
    return measured


def _counter(tokenizer: Path) -> Count:
    """Counts tokens as the base model's tokenizer does."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda texts: [len(e.ids) for e in loaded.encode_batch(list(texts), add_special_tokens=False)]


def _validate(
    case: str, splits: Mapping[str, list[Pair]], pairs: Pairs, context: int, as_of: datetime, state: Path, work: Path
) -> Validation:
    """Put the splits to Great Expectations as the batches of a source. Raises: DataError when they fail."""
    never_empty = ("intent", "messages", "answer", "origin", "template", "tokens")
    expected: list[dict[str, Any]] = [
        *({"expect": "column_values_to_not_be_null", "column": column} for column in never_empty),
        {"expect": "column_values_to_be_null", "column": "problem", "why": "a message, and an answer by the schema"},
        {"expect": "column_values_to_be_between", "column": "tokens", "min_value": 1, "max_value": context},
    ]
    source = Source(
        uri=f"file://{NAME}",
        key=("pair_id",),
        tolerance=pairs.tolerance,
        expectations=(*map(Expectation.model_validate, expected), *pairs.expectations),
    )
    batches = {name: work / f"{name}.parquet" for name in splits}
    for name, path in batches.items():
        write_pairs(splits[name], path, problems=True)
    moment = f"{as_of:%Y-%m-%dT%H%M%S}"
    docs, aside = state / "docs" / case / NAME / moment, state / "quarantine" / case / NAME / f"{moment}.parquet"
    validation = validate(NAME, batches, source, {}, as_of, docs, aside, work / "clean")
    if validation.failed:
        raise DataError(
            f"The pairs of {case} failed their validation; nothing was changed.",
            where="pairs",
            found="".join(f"\n    {sentence}" for sentence in validation.failed),
            todo=f"See {validation.docs}"
            + (f"; the pairs put aside, with reasons, are in {validation.quarantine}" if validation.quarantine else "")
            + ". Correct the pairs, or pairs.expectations.",
        )
    return validation


def _drop_problem(clean: Path, out: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(clean).drop_columns(["problem"]), out)


def _without(rows: list[Pair], validation: Validation) -> list[Pair]:
    """The pairs that were not put aside."""
    import pyarrow.parquet as pq

    if validation.quarantine is None:
        return rows
    aside = set(pq.read_table(validation.quarantine, columns=["pair_id"])["pair_id"].to_pylist())
    return [pair for pair in rows if pair.pair_id not in aside]
