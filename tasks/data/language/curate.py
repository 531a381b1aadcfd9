"""Curates instruction pairs: generate or read, redact, deduplicate, split, and validate them like any source."""

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
from tasks.data.config import Answer, ChatSpec, Expectation, Pairs, PairsSpec, Source
from tasks.data.language.data_card import write_card
from tasks.data.language.pairs import Pair, PairFormat, write_pairs
from tasks.data.language.source_tables import source_tables
from tasks.data.language.splits import make_splits
from tasks.data.language.templates import check_templates
from tasks.data.language.unlabelled import unlabelled_pairs
from tasks.data.results import BaseModelFiles, ValidatedBatches, Validation
from tasks.data.tabular.validate import ValidationPaths, validate
from tasks.language.messages import USER, chat_message
from tasks.language.prompts import render

NAME = "pairs"  # their name as a source
TEMPLATE_TOKENS = 8  # tokens that a chat template adds to a message, at most
TokenCounter = Callable[[Sequence[str]], list[int]]
Length = tuple[str, int, str]  # of a pair: its split, its tokens, and its text


def check_pairs(pairs: Pairs, answer: Answer, sources: Mapping[str, Source]) -> None:
    """Check a case's pairs as far as possible without data.

    Raises: CaseError naming all problems.
    """
    form = PairFormat(answer)
    problems = []
    if answer.abstain is not None and (problem := form.problem(answer.abstain)):
        problems.append(f"answer.abstain: {problem}")
    if unknown := sorted({*pairs.sources, *([pairs.safety] if pairs.safety else [])} - set(sources)):
        problems.append(f"no source is called {', '.join(unknown)}; there are: {', '.join(sources)}")
    if pairs.templates and answer.format == "text":
        problems.append("templates make answers in JSON; answers in prose come from sources")
    elif pairs.templates:
        problems += [f"templates.{problem}" for problem in check_templates(pairs.templates, answer, form)]
    if problems:
        raise CaseError(
            f"The pairs of the case are not valid: {len(problems)} to correct.",
            where="pairs",
            found="".join(f"\n    {sentence}" for sentence in problems),
            todo="Correct these in case.yaml, or in the files that it names.",
        )


def curate(
    case: str,
    spec: PairsSpec,
    base: BaseModelFiles,
    *,
    validated: list[ValidatedBatches],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """The splits of a case's instruction pairs, as Parquet; equal inputs give equal files, written once.

    validated: the batches of the sources, which the SQL of the templates queries.
    Raises: CaseError for templates that don't render; DataError for pairs that leak, are too long, or fail validation.
    """
    pairs, chat = spec.pairs, spec.chat
    check_pairs(pairs, chat.answer, spec.sources)
    inputs = {v.source: {name: file_digest(path) for name, path in sorted(v.files.items())} for v in validated}
    tokenizer = None if base.upstream else base.folder / "tokenizer.json"
    first_held_out = (as_of - pairs.held_out_days).date().isoformat()  # all that depends on the as-of itself
    # the prompt is not among them: a change of it curates nothing
    settings: list[Any] = [
        pairs.digest,
        chat.answer.digest,
        file_digest(tokenizer) if tokenizer else "",
        chat.context,
        spec.tuned,
    ]
    settings += [spec.traffic, spec.messages] if pairs.none else []
    count = _token_counter(tokenizer)
    home = state / NAME / case / cache_key(__name__, [inputs, *settings, first_held_out])[:20]
    with contextlib.suppress(OSError, ValueError):
        existing = ValidatedBatches.model_validate_json((home / "checked.json").read_text(encoding="utf-8"))
        if all(path.is_file() for path in existing.files.values()):
            _require_room(_lengths(existing.files), chat, count)
            mark_cached()
            return existing
    with source_tables({source.source: list(source.files.values()) for source in validated}) as db:
        unlabelled = unlabelled_pairs(db, spec) if pairs.none else []
        splits, report = make_splits(db, pairs, chat.answer, as_of, tuned=spec.tuned, unlabelled=unlabelled)
    splits = _count_tokens(splits, count)
    _require_room([(name, pair.tokens, pair.text) for name, rows in splits.items() for pair in rows], chat, count)
    moment = f"{as_of:%Y-%m-%dT%H%M%S}"
    with scratch_folder(state / NAME / case) as folder:
        paths = ValidationPaths(
            docs=state / "docs" / case / NAME / moment,
            quarantine=state / "quarantine" / case / NAME / f"{moment}.parquet",
            clean=Path(folder) / "clean",
        )
        validation = _validate(case, splits, _as_source(pairs, chat.context), as_of, paths)
        validation = validation.model_copy(update={"warnings": [*validation.warnings, *report.short]})
        shutil.rmtree(home, ignore_errors=True)  # of an earlier attempt, damaged since
        with atomic_path(home) as out:
            out.mkdir()
            for name in splits:
                _drop_problem(paths.clean / f"{name}.parquet", out / f"{name}.parquet")
            clean = {name: _without_quarantined(rows, validation) for name, rows in splits.items()}
            about = {"case": case, "as_of": f"{as_of:%Y-%m-%d %H:%M} UTC", "base": base.source, "context": chat.context}
            write_card(out / "card.md", about, clean, inputs=inputs, notes=report.summary(), validation=validation)
            result = ValidatedBatches(
                source=NAME,
                files={name: home / f"{name}.parquet" for name in splits},
                rows=sum(map(len, clean.values())),
                quarantined=sum(validation.quarantined.values()),
                validation=validation,
            )
            (out / "checked.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return result


def _count_tokens(splits: dict[str, list[Pair]], count: TokenCounter) -> dict[str, list[Pair]]:
    """The splits with the tokens of each pair: messages, answer and the template's own tokens, without the prompt."""
    measured = {}
    for name, rows in splits.items():
        parts = [[message["content"] for message in pair.messages] + [pair.answer] for pair in rows]
        counts = iter(count([part for of_pair in parts for part in of_pair]))
        sums = [sum(next(counts) + TEMPLATE_TOKENS for _ in of_pair) for of_pair in parts]
        measured[name] = [replace(pair, tokens=tokens) for pair, tokens in zip(rows, sums, strict=True)]
    return measured


def _lengths(files: Mapping[str, Path]) -> list[Length]:
    import pyarrow.parquet as pq

    tables = {name: pq.read_table(path, columns=["tokens", "messages"]).to_pylist() for name, path in files.items()}
    return [(name, row["tokens"], row["messages"]) for name, rows in tables.items() for row in rows]


def _require_room(lengths: Sequence[Length], chat: ChatSpec, count: TokenCounter) -> None:
    """Raises: DataError when a pair and the prompt are longer than the context."""
    prompt = [each["content"] for each in render(chat.prompt, [chat_message(USER, "")])]
    of_prompt = sum(count(prompt)) + TEMPLATE_TOKENS * (len(prompt) - 1)  # the user's message is the pair's
    if too_long := [each for each in lengths if each[1] + of_prompt > chat.context]:
        name, tokens, text = max(too_long, key=lambda entry: entry[1])
        raise DataError(
            f"{len(too_long)} pairs are longer than the context.",
            where=f"the longest is in {name}: {text[:100]!r}",
            found=f"{tokens + of_prompt} tokens with prompt and answer",
            allowed=f"{chat.context} tokens (model.context)",
            todo="Shorten or remove the pairs, shorten the prompt, or raise model.context if the base model allows.",
        )


def _token_counter(tokenizer: Path | None) -> TokenCounter:
    """Counts tokens with the base model's tokenizer; estimates them without one, by four bytes a token."""
    if tokenizer is None:
        return lambda texts: [-(-len(text.encode()) // 4) for text in texts]
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda texts: [len(e.ids) for e in loaded.encode_batch(list(texts), add_special_tokens=False)]


def _as_source(pairs: Pairs, context: int) -> Source:
    """The pairs as a source, with the expectations that always apply and those of the case."""
    never_empty = ("intent", "messages", "answer", "origin", "template", "tokens")
    expected: list[dict[str, Any]] = [
        *({"expect": "column_values_to_not_be_null", "column": column} for column in never_empty),
        {"expect": "column_values_to_be_null", "column": "problem", "why": "a message, and an answer by the schema"},
        {"expect": "column_values_to_be_between", "column": "tokens", "min_value": 1, "max_value": context},
    ]
    return Source(
        uri=f"file://{NAME}",
        key=("pair_id",),
        tolerance=pairs.tolerance,
        expectations=(*map(Expectation.model_validate, expected), *pairs.expectations),
    )


def _validate(
    case: str, splits: Mapping[str, list[Pair]], source: Source, as_of: datetime, paths: ValidationPaths
) -> Validation:
    """Validate the splits as the batches of a source. Raises: DataError when they fail."""
    batches = {name: paths.clean.parent / f"{name}.parquet" for name in splits}
    for name, path in batches.items():
        write_pairs(splits[name], path, problems=True)
    validation = validate(NAME, source, batches, references={}, as_of=as_of, paths=paths)
    if validation.failed:
        raise DataError(
            f"The pairs of {case} failed their validation; nothing was changed.",
            where="pairs",
            found="".join(f"\n    {sentence}" for sentence in validation.failed),
            todo=f"See {validation.docs}"
            + (f"; quarantined pairs, with reasons, are in {validation.quarantine}" if validation.quarantine else "")
            + ". Correct the pairs, or pairs.expectations.",
        )
    return validation


def _drop_problem(clean: Path, out: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(clean).drop_columns(["problem"]), out)


def _without_quarantined(rows: list[Pair], validation: Validation) -> list[Pair]:
    import pyarrow.parquet as pq

    if validation.quarantine is None:
        return rows
    quarantined = set(pq.read_table(validation.quarantine, columns=["pair_id"])["pair_id"].to_pylist())
    return [pair for pair in rows if pair.pair_id not in quarantined]
