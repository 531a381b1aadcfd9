"""Texts that are written to be slow to check, and the time that each rule takes for them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.table import Report
from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine
from tasks.guard.files import trained_folder
from tasks.guard.results import Context

LENGTH = 100_000  # characters
PIECES = {
    **{"digits": "1", "single digits": "1 ", "card numbers": "4111 ", "telephone numbers": "+1 212-555-0100 "},
    **{"combining marks": "a\u0307\u0323", "many combining marks": "e" + 9 * "\u0301", "zero width": "i\u200bg\u200b"},
    **{"nested groups": "((((a+)+)+)+)", "single letters": "a b c ", "dotted letters": "a.", "addresses": "a@b."},
    **{
        "percent signs": "%25",
        "JSON escapes": "\\u0041",
        "HTML escapes": "&#65;",
        "base64": "QUJD",
        "hexadecimal": "41 ",
    },
    **{"full width": "\uff11", "Cyrillic": "\u0430", "demands": "ignore all ", "passwords": "password=a1 "},
    **{"accounts": "DE89 ", "links": "http://a.b ", "words": "lorem ipsum ", "slashes": "/", "fences": "```\n"},
    **{"backticks": "`", "lines": "\n", "commas": "1,"},
}
RULES: tuple[dict[str, Any], ...] = (
    *({"check": name} for name in ("personal_data", "secrets", "injection", "characters", "encoded", "repetition")),
    *({"check": name} for name in ("links", "code", "groundedness")),
    {"check": "words", "words": ["forbidden word"]},
    {"check": "language", "languages": ["en"]},
    {"check": "schema", "json_schema": {"type": "object"}},
    {"check": "classifier", "model": "injection"},
)


def measure_hostile(report: Report, state: Path) -> None:
    """The slowest text of each rule in milliseconds of processor time, the less of two tries."""
    context, worst = Context(passages=("The ferry leaves at nine.",)), 0.0
    for rule in RULES:
        engine = GuardEngine(Guardrails.model_validate({"output": [{**rule, "action": "flag"}]}), trained_folder(state))
        times = {name: min(_ms(engine, piece, context) for _ in range(2)) for name, piece in PIECES.items()}
        slowest = max(times, key=lambda name: times[name])
        report.row(f"hostile: {rule['check']}, {slowest}", LENGTH, f"{times[slowest]:.0f} ms", "-", "-")
        worst = max(worst, times[slowest])
    report.figure("hostile_ms", worst)


def _ms(engine: GuardEngine, piece: str, context: Context) -> float:
    text = (piece * (LENGTH // len(piece) + 1))[:LENGTH]
    begin = time.thread_time()
    engine.check(text, "output", context=context)
    return (time.thread_time() - begin) * 1000
