"""Split examples into training and hold-out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.train.config import Split, Target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def split_frame(frame: pd.DataFrame, split: Split, target: Target | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (train, holdout), each in the frame's order; every example is in exactly one of them.

    By time, the hold-out is the last `holdout` of the span, or the latest `share` of the rows. Nothing from its start
    on is trained on, and rows of one moment stay together. By hash, an example's side depends on its id alone: it
    stays there when others come or go.

    Raises: DataError when a side is empty or, given a classification target, holds one class only.
    """
    holdout = _holdout_mask(frame, split).astype(bool)
    sides = {"training": frame.loc[~holdout], "holdout": frame.loc[holdout]}
    for name, side in sides.items():
        if side.empty:
            raise DataError(
                f"The {name} side of the split is empty.",
                where=f"split by {split.by}, {len(frame):,} examples {_span(frame)}",
                found=f"training {len(sides['training']):,}, holdout {len(sides['holdout']):,}",
                allowed="at least one example on each side",
                todo="Change train.split, or take more data (an earlier start or a later as-of).",
            )
        if target is not None and target.task == "classification":
            classes = side[target.column].dropna().unique()
            if len(classes) < 2:
                raise DataError(
                    f"The {name} side of the split holds one class only.",
                    where=f"target {target.column}, split by {split.by}, {len(side):,} examples {_span(side)}",
                    found=f"only {classes.tolist()}",
                    allowed="two classes at least",
                    todo="Change train.split so that the classes are on both sides, or check the target's SQL.",
                )
    return sides["training"], sides["holdout"]


def _holdout_mask(frame: pd.DataFrame, split: Split) -> np.ndarray | pd.Series:
    import numpy as np

    if frame.empty:
        return np.zeros(0, bool)
    if split.by == "time":
        times = frame["event_timestamp"]
        return times >= (times.max() - split.holdout if split.share is None else _start_of_latest(times, split.share))
    return np.fromiter(map(hash_position, frame["example_id"]), float, len(frame)) < split.share


def _start_of_latest(times: pd.Series, share: float) -> pd.Timestamp:
    """The moment from which on the share of rows is nearest to the wanted one."""
    shares = times.value_counts(normalize=True).sort_index(ascending=False).cumsum()
    return shares.index[int((shares - share).abs().argmin())]


def hash_position(example_id: object) -> float:
    """A number in [0, 1) that depends on the id alone, in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(str(example_id).encode()).digest()[:6], "big") / 2**48


def _span(frame: pd.DataFrame) -> str:
    if frame.empty or "event_timestamp" not in frame:
        return ""
    times = frame["event_timestamp"]
    return f"from {times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M}"
