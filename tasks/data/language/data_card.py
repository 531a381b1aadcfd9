"""The data card of a case's instruction pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.display import markdown_table
from tasks.data.language.pairs import Pair
from tasks.data.results import Validation

EXAMPLES = 2  # of each intent and split


def write_card(
    path: Path,
    about: Mapping[str, Any],
    splits: Mapping[str, Sequence[Pair]],
    *,
    inputs: Mapping[str, Mapping[str, str]],
    notes: Mapping[str, Any],
    validation: Validation,
) -> None:
    """Write the contents of the pairs and their origin, as Markdown.

    inputs: SHA-256 of the files by source and batch. notes: what was done to the pairs, in order.
    """
    quarantined = ", ".join(f"{n} of {split}" for split, n in sorted(validation.quarantined.items())) or "none"
    intents = sorted({pair.intent for rows in splits.values() for pair in rows})
    parts = [
        f"# Instruction pairs of {about['case']}\n",
        *(f"- {name}: {value}" for name, value in about.items() if name != "case"),
        *(f"- {name}: {value}" for name, value in notes.items()),
        f"- quarantined: {quarantined}",
        f"- expectations met: {validation.expectations}\n",
        "## How many\n",
        *markdown_table(
            ["intent", *splits],
            [[i, *(sum(p.intent == i for p in rows) for rows in splits.values())] for i in intents],
        ),
        *markdown_table(
            ["", *splits],
            [
                ["pairs", *map(len, splits.values())],
                ["wordings", *(len({p.template for p in rows if p.template}) for rows in splits.values())],
                ["days", *(_days(rows) for rows in splits.values())],
                ["from", *(", ".join(sorted({p.origin for p in rows})) for rows in splits.values())],
                ["with a rejected answer", *(sum(p.rejected is not None for p in rows) for rows in splits.values())],
                *([f"tokens {name}", *(f(rows) for rows in splits.values())] for name, f in _TOKEN_STATISTICS.items()),
            ],
        ),
        "## From\n",
        *markdown_table(
            ["source", "batch", "SHA-256"], [[s, b, d] for s, files in inputs.items() for b, d in files.items()]
        ),
        "## Examples\n",
        *markdown_table(
            ["split", "intent", "message", "answer"],
            [[n, p.intent, p.text, p.answer] for n, rows in splits.items() for p in _first_of_each(rows)],
        ),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _days(rows: Sequence[Pair]) -> str:
    days = {pair.day for pair in rows if pair.day}
    return f"{min(days)} to {max(days)}" if days else ""


def _quantile(share: float, rows: Sequence[Pair]) -> int:
    lengths = sorted(pair.tokens for pair in rows)
    return lengths[min(int(share * len(lengths)), len(lengths) - 1)] if lengths else 0


_TOKEN_STATISTICS: dict[str, Callable[[Sequence[Pair]], int]] = {
    "p50": lambda rows: _quantile(0.5, rows),
    "p95": lambda rows: _quantile(0.95, rows),
    "max": lambda rows: _quantile(1, rows),
}


def _first_of_each(rows: Sequence[Pair]) -> list[Pair]:
    """A few pairs of each intent."""
    shown: Counter[str] = Counter()
    chosen = []
    for pair in rows:
        if shown[pair.intent] < EXAMPLES:
            shown[pair.intent] += 1
            chosen.append(pair)
    return sorted(chosen, key=lambda pair: pair.intent)
