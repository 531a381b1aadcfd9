"""A cache of single responses, so that a changed document or question asks a model only for what changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.files import file_digest, write_text
from tasks.evaluate.language.responses import Conversation, EngineOptions, generate_responses

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "single"  # in the folder of answers


def cached_responses(
    model: Path,
    conversations: Sequence[Conversation],
    options: EngineOptions,
    state: Path,
    schema: dict[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """As generate_responses; only conversations that this model did not answer before, with these options, are sent."""
    import pandas as pd

    same: dict[str, Any] = {"model": file_digest(model), "serving": options.serving.digest, "context": options.context}
    same |= {"sampling": options.sampling} | ({"schema": schema} if schema else {})
    group = cache_key(__name__, same)[:16]
    folder = state / "answers" / FOLDER / group
    paths = [folder / f"{digest_of(each)[:24]}.json" for each in conversations]
    new = {path: each for path, each in zip(paths, conversations, strict=True) if not path.is_file()}
    timing_file = folder / "timing.json"
    if new:
        table, timing = generate_responses(model, list(new.values()), options, state, schema)
        for path, row in zip(new, table.to_dict("records"), strict=True):
            write_text(path, json.dumps(row))
        write_text(timing_file, json.dumps(timing))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    timing = json.loads(timing_file.read_text(encoding="utf-8")) if timing_file.is_file() else {}
    return pd.DataFrame(rows), timing
