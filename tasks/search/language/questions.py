"""The questions that all arms of a search answer, and the examples that prompts may show; the gates use neither."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.evaluate.language.inference import message_in
from tasks.search.language.prompt_space import Example

if TYPE_CHECKING:
    import pandas as pd

SEARCHED = ("train", "validation", "development")  # splits whose pairs the gates never use
POOL_SHARE, MAX_POOL, MAX_QUESTIONS = 3, 32, 200  # a third of the pairs may become examples
FEWEST = 8  # questions


def searched_pairs(
    case: str, folder: Path, splits: Sequence[str], learned: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Example]]:
    """The pairs of these splits that a search answers, and those that prompts may show as examples.

    Examples come from the splits `learned`, which a model is trained on; without them, from the same splits.
    Raises: DataError when too few pairs are left beside those of the evaluation.
    """
    pairs = _read_splits(folder, splits)
    others = _read_splits(folder, learned)
    most = MAX_POOL if learned else max(0, min(len(pairs) // POOL_SHARE, len(pairs) - FEWEST, MAX_POOL))
    pool = others if learned else pairs
    examples = pool[[_is_example(row) for row in pool.to_dict("records")]].head(most)
    rest = pairs if learned else pairs.drop(examples.index)
    rest = rest.head(MAX_QUESTIONS).reset_index(drop=True)
    if len(rest) < FEWEST:
        raise DataError(
            "There are too few questions to compare arms by.",
            where=f"case {case}, pairs",
            found=f"{len(pairs)} pairs beside those of the evaluation, which are left to the gates",
            allowed=f"at least {FEWEST}",
            todo="Add lines to a source of pairs.sources; a quarter of them is not used for evaluation.",
        )
    return rest, [(message_in(row["messages"]), row["answer"]) for row in examples.to_dict("records")]


def _read_splits(folder: Path, splits: Sequence[str]) -> pd.DataFrame:
    """The pairs of these splits, in an order that does not depend on their texts."""
    import pandas as pd

    files = [folder / f"{name}.parquet" for name in splits]
    tables = [pd.read_parquet(file) for file in files if file.is_file()]
    pairs = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if len(pairs):
        pairs = pairs.assign(unsafe=False, place=pairs["pair_id"].map(digest_of)).sort_values("place")
    return pairs


def _is_example(pair: dict[Any, Any]) -> bool:
    """Whether a pair can stand in a prompt: one message with a reference."""
    return bool(pair["answer"].strip()) and len(json.loads(pair["messages"])) == 1
