"""The previous champion on the same window: a rollback helps only if it is better there."""

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
    known: pd.DataFrame, classes: Classes, predecessor: Release, examples: Path | None, gate: ChampionGate
) -> tuple[Predecessor | None, str]:
    """Compare the losses of the previous champion with the champion's, on the rows that have an outcome.

    `classes` are the champion's. The features are those of `examples`, as of each row's own moment; without, those of
    the rows themselves. Returns None and the reason when these lack what the model needs.
    """
    import pyarrow.parquet as pq

    columns = [column.name for column in predecessor.columns]
    try:
        rows = known
        if examples is not None:
            existing = pq.read_schema(examples).names
            names = ["example_id", *(name for name in columns if name in existing)]
            table = pq.read_table(examples, columns=names).to_pandas()
            rows = table.set_index("example_id").reindex(known["example_id"]).reset_index()
        model = load(predecessor.model)
        previous = predict(model, rows, predecessor.columns)
    except DataError as error:
        return None, f"The champion before was not compared: {error.what} {error.found}."
    y, current, previous = align_classes(
        known["outcome"], predictions_in(known, classes), classes, previous, model.classes
    )
    difference = paired_bootstrap(
        losses(gate.loss, y, previous),
        losses(gate.loss, y, current),
        confidence=gate.confidence,
        resamples=gate.resamples,
    )
    return Predecessor(
        release=predecessor.digest,
        rows=difference.rows,
        loss=gate.loss,
        difference=round(difference.difference, 6),
        low=round(difference.low, 6),
        high=round(difference.high, 6),
        better=difference.rows >= gate.min_rows and difference.high < 0 and difference.high <= -gate.margin,
    ), ""
