"""Data quality over time: rows, quarantined rows and missing values of each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.results import Snapshot
from tasks.monitor.results import BatchQuality

if TYPE_CHECKING:
    import pandas as pd

BATCHES = 36  # of a source, the newest


def snapshot_quality(snapshot: Snapshot) -> tuple[BatchQuality, ...]:
    """Of the batches of each source: from the footers of their files, so no value is read."""
    return tuple(
        _batch_quality(source, path, snapshot.quarantined_by_batch.get(source, {}))
        for source in sorted(snapshot.rows)
        for path in sorted((snapshot.path / source).glob("*.parquet"))[-BATCHES:]
    )


def daily_quality(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[BatchQuality, ...]:
    """Of the rows that were scored on each day."""
    days = rows.groupby(rows["event_timestamp"].dt.strftime("%Y-%m-%d"))
    batches = []
    for day, group in sorted(days, key=lambda item: str(item[0]))[-BATCHES:]:
        shares = {name: round(float(group[name].isna().mean()), 6) for name in columns}
        missing = {name: share for name, share in shares.items() if share}
        batches.append(BatchQuality(source="scored rows", batch=str(day), rows=len(group), missing=missing))
    return tuple(batches)


def _batch_quality(source: str, path: Path, quarantined: Mapping[str, int]) -> BatchQuality:
    import pyarrow.parquet as pq

    footer, nulls = pq.read_metadata(path), dict[str, int]()
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            column = footer.row_group(group).column(number)
            if column.is_stats_set and column.statistics.null_count:
                nulls[column.path_in_schema] = nulls.get(column.path_in_schema, 0) + column.statistics.null_count
    rows = footer.num_rows
    missing = {name: round(count / rows, 6) for name, count in sorted(nulls.items())}
    count = quarantined.get(path.stem, 0)
    return BatchQuality(source=source, batch=path.stem, rows=rows, quarantined=count, missing=missing)
