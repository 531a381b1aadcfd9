"""The champion before on this very window: only then is going back to it known to help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.evaluate.config import ChampionGate
from tasks.monitor.results import Predecessor
from tasks.release.results import Release
from tasks.statistics.bootstrap import paired_bootstrap
from tasks.train.classes import Classes, align_classes, predictions_in
from tasks.train.metrics import losses
from tasks.train.tabular.model_file import load, predict

if TYPE_CHECKING:
    import pandas as pd


def compare_predecessor(
    known: pd.DataFrame, classes: Classes, before: Release, examples: Path, gate: ChampionGate, missing: list[str]
) -> Predecessor | None:
    """Compare the losses of the previous champion with the champion's, on the rows that have an outcome.

    `classes` are the champion's. The features are those of `examples`, as of each row's own moment. None, with a
    sentence in `missing`, when they lack what that model takes.
    """
    import pyarrow.parquet as pq

    columns = [column.name for column in before.columns]
    try:
        there = pq.read_schema(examples).names
        rows = pq.read_table(examples, columns=["example_id", *(name for name in columns if name in there)]).to_pandas()
        same = rows.set_index("example_id").reindex(known["example_id"]).reset_index()
        model = load(before.model)
        answers = predict(model, same, before.columns)
    except DataError as error:
        missing.append(f"The champion before was not compared: {error.what} {error.found}.")
        return None
    y, ours, theirs = align_classes(known["outcome"], predictions_in(known, classes), classes, answers, model.classes)
    ours, theirs = (losses(gate.loss, y, p) for p in (ours, theirs))
    found = paired_bootstrap(theirs, ours, confidence=gate.confidence, resamples=gate.resamples)
    return Predecessor(
        release=before.digest,
        rows=found.rows,
        loss=gate.loss,
        difference=round(found.difference, 6),
        low=round(found.low, 6),
        high=round(found.high, 6),
        better=found.rows >= gate.min_rows and found.high < 0 and found.high <= -gate.margin,
    )
