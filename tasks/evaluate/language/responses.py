"""Responses of models to conversations, cached: baselines and champions answer the same set many times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import atomic_path, file_digest
from tasks.core.progress import progress_step
from tasks.language.engine import Completion
from tasks.language.open_engine import open_engine
from tasks.language.prompts import GREEDY, Decoding
from tasks.language.token_count import count_tokens
from tasks.train.config import Serving

if TYPE_CHECKING:
    import pandas as pd

SEQUENTIAL = 16  # conversations that are sent one at a time; the others are sent in parallel, one a slot
BATCH = 160  # conversations between two reports of progress
Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class EngineOptions:
    """How the engine runs a model; `context` is in tokens, and a second `round` asks for all answers once more."""

    serving: Serving
    context: int
    threads: int
    decoding: Decoding = GREEDY
    seed: int = 0
    round: int = 1

    @property
    def sampling(self) -> dict[str, Any]:
        """The options of `Engine.chat`."""
        return {
            "max_tokens": self.decoding.max_tokens or self.serving.answer_tokens,
            "seed": self.seed,
            **self.decoding.overrides,
        }


def generate_responses(
    model: Path,
    conversations: Sequence[Conversation],
    options: EngineOptions,
    state: Path,
    schema: dict[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The responses, a row a conversation, and two timings: the latency of a single request, and seconds per response.

    Equal inputs return the responses stored under `state`/answers, also in the next run after a killed one. `schema`
    constrains the responses.

    Raises: DataError when a conversation does not fit or the model can't be read; Unavailable when the engine ends.
    """
    import pandas as pd

    key = cache_key(
        __name__,
        {
            "model": file_digest(model) if model.is_file() else str(model),
            "conversations": list(conversations),
            "serving": options.serving.digest,
            "context": options.context,
            "sampling": options.sampling,
            "round": options.round,
            "schema": schema,
        },
    )
    folder = state / "answers" / key[:16]
    if (cached := _read_cached(folder)) is not None:
        return cached
    slots = options.serving.slots
    sampling: dict[str, Any] = {**options.sampling, "schema": schema}
    with open_engine(model, threads=options.threads, slots=slots, context=options.context) as engine:
        begun = monotonic()
        engine.warm(conversations[0])  # each slot then has the common prefix in its cache
        sequential = [engine.chat(each, **sampling) for each in conversations[:SEQUENTIAL]]
        started = monotonic()
        parallel: list[Completion] = []
        for start in range(SEQUENTIAL, len(conversations), BATCH):
            with progress_step(f"answers {start + 1:,} to {min(start + BATCH, len(conversations)):,}") as step:
                parallel += engine.chat_batch(conversations[start : start + BATCH], **sampling)
                step.figure = _throughput(parallel, len(conversations) - SEQUENTIAL, monotonic() - started)
        seconds = monotonic() - started
    responses = [*sequential, *parallel]
    count_tokens(responses, monotonic() - begun)
    latency = median(response.seconds for response in sequential)
    table = pd.DataFrame([{k: v for k, v in asdict(each).items() if k != "logprobs"} for each in responses])
    timing = {"latency_p50_ms": 1000 * latency, "seconds_per_answer": seconds / len(parallel) if parallel else latency}
    with atomic_path(folder) as work:
        work.mkdir(parents=True)
        table.to_parquet(work / "replies.parquet", index=False)
        (work / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
    return table, timing


def _throughput(responses: Sequence[Completion], total: int, seconds: float) -> str:
    left = (total - len(responses)) * seconds / len(responses)
    return f"{sum(response.tokens_out for response in responses) / seconds:.0f} tokens/s, {left / 60:.1f} min left"


def _read_cached(folder: Path) -> tuple[pd.DataFrame, dict[str, float]] | None:
    """Responses of an earlier call; a folder that can't be read is removed."""
    import pandas as pd

    if not folder.exists():
        return None
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
        return pd.read_parquet(folder / "replies.parquet"), timing
    except (OSError, ValueError):
        rmtree(folder)
        return None
