"""Replies of models to conversations; they are cached, since baselines and champions answer the same set many times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import atomic_path, file_digest
from tasks.core.progress import progress_step
from tasks.language.engine import Completion, start_engine
from tasks.train.config import Serving

if TYPE_CHECKING:
    import pandas as pd

ALONE = 16  # conversations that are asked one at a time, the others as many at once as there are slots
TOLD = 160  # conversations after which it is told how far it has come
Conversation = list[dict[str, str]]


def generate_responses(
    model: Path,
    conversations: Sequence[Conversation],
    serving: Serving,
    context: int,
    threads: int,
    state: Path,
    schema: dict[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Give a model's replies, a row a conversation; the latency of one alone; and the seconds each takes among many.

    The same model asked the same again is not asked: replies are kept under `state`/answers, for baselines and
    champions answer the same set many times, and a killed run should not ask again either. `context` is in tokens.

    Raises: DataError when a conversation does not fit or the model can't be read; Unavailable when the engine ends.
    """
    import pandas as pd

    key = cache_key(
        __name__,
        {
            "model": file_digest(model) if model.is_file() else str(model),
            "conversations": list(conversations),
            "serving": serving.digest,
            "context": context,
            "schema": schema,
        },
    )
    folder = state / "answers" / key[:16]
    if (cached := _read_cached(folder)) is not None:
        return cached
    options: dict[str, Any] = {"max_tokens": serving.answer_tokens, "schema": schema}
    with start_engine(model, threads=threads, slots=serving.slots, context=context) as running:
        running.chat_batch([conversations[0]] * serving.slots, max_tokens=1)  # each slot has read what all begin with
        alone = [running.chat(each, **options) for each in conversations[:ALONE]]
        begun = monotonic()
        together: list[Completion] = []
        for start in range(ALONE, len(conversations), TOLD):
            with progress_step(f"answers {start + 1:,} to {min(start + TOLD, len(conversations)):,}") as told:
                together += running.chat_batch(conversations[start : start + TOLD], **options)
                told.figure = _pace(together, len(conversations) - ALONE, monotonic() - begun)
        spent = monotonic() - begun
    replies = [*alone, *together]
    latency = median(reply.seconds for reply in alone)
    table = pd.DataFrame([{k: v for k, v in asdict(reply).items() if k != "logprobs"} for reply in replies])
    timing = {"latency_p50_ms": 1000 * latency, "seconds_per_answer": spent / len(together) if together else latency}
    with atomic_path(folder) as work:
        work.mkdir(parents=True)
        table.to_parquet(work / "replies.parquet", index=False)
        (work / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
    return table, timing


def _pace(replies: Sequence[Completion], of: int, seconds: float) -> str:
    left = (of - len(replies)) * seconds / len(replies)
    return f"{sum(reply.tokens_out for reply in replies) / seconds:.0f} tokens/s, {left / 60:.1f} min left"


def _read_cached(folder: Path) -> tuple[pd.DataFrame, dict[str, float]] | None:
    """Replies of an earlier call; a folder that can't be read is cleared."""
    import pandas as pd

    if not folder.exists():
        return None
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
        return pd.read_parquet(folder / "replies.parquet"), timing
    except (OSError, ValueError):
        rmtree(folder)
        return None
