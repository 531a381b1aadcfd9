"""The rows of an evaluation: the hold-out, and a sample of the training rows to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.features.results import Column
from tasks.train.classes import Classes, normalize_label
from tasks.train.config import Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.model_file import Model
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import pandas as pd

TRAINING_ROWS = 20_000
RARE = 10  # fewer hold-out rows of a class say little about it


@dataclass(frozen=True)
class EvaluationRows:
    """What a candidate is evaluated on."""

    training: pd.DataFrame  # a random sample of what a candidate is trained on
    holdout: pd.DataFrame
    columns: tuple[Column, ...]  # those that the model takes
    target: Target
    classes: Classes
    summary: str  # how many rows are on which side, and why; one sentence

    def class_rows(self) -> dict[str, int]:
        """The hold-out's rows of each class."""
        counts = {normalize_label(k): int(v) for k, v in self.holdout[self.target.column].value_counts().items()}
        return {str(name): counts.get(name, 0) for name in self.classes}


def read_rows(candidate: Candidate, target: Target, train: Train, model: Model) -> EvaluationRows:
    """Split the candidate's frame as its training did.

    Raises: DataError when a side is empty.
    """
    import numpy as np
    import pyarrow.parquet as pq

    frame = pq.read_table(candidate.frame)
    # the split needs three columns; Python text of all the rows that were trained on would take longest
    needed = frame.select(["example_id", "event_timestamp", target.column]).to_pandas()
    needed = needed[needed[target.column].notna()]
    learned, held = split_frame(needed, train.split)
    if train.rows:
        learned = learned.tail(train.rows)
    chosen = np.random.default_rng(train.seed).permutation(learned.index.to_numpy())[:TRAINING_ROWS]
    return EvaluationRows(
        training=frame.take(np.sort(chosen)).to_pandas(),
        holdout=frame.take(held.index.to_numpy()).to_pandas(),
        columns=model.columns,
        target=target,
        classes=model.classes,
        summary=_summary(candidate, target, learned, held),
    )


def _summary(candidate: Candidate, target: Target, learned: pd.DataFrame, held: pd.DataFrame) -> str:
    """The rows of each side with their time, those without a target, and of a regression the target's size."""
    rows, times = len(learned) + len(held), held["event_timestamp"]
    first, last = times.min(), times.max()
    trained = f"trained on {len(learned):,} rows" if candidate.train_rows else "imported, trained elsewhere"
    text = f"{trained}, evaluated on {len(held):,} ({len(held) / rows:.1%} of the rows"
    if first < last:
        text += f", {first:%Y-%m-%d} to {last:%Y-%m-%d}: {(last.normalize() - first.normalize()).days + 1} days"
    text += ")"
    if candidate.without_target:
        share = candidate.without_target / (candidate.without_target + candidate.train_rows + candidate.holdout_rows)
        text += f"; left out {candidate.without_target:,} rows ({share:.1%}) without a value of {target.column}"
    if target.task == "regression":
        low, middle, high = held[target.column].astype("float64").quantile([0.25, 0.5, 0.75])
        text += (
            f"; mae and rmse are in the unit of {target.column}, whose median is {middle:.4g} and whose middle half is"
        )
        text += f" {low:.4g} to {high:.4g}"
    return text
