"""Predict a frame with a release, month by month, into Parquet that holds each example once.

OUT/CASE/release=DIGEST12/month=YYYY-MM/part-DIGEST16.parquet. The digest of its inputs names a part, and a part is
written atomically. So a restarted run skips finished months and writes the same files as an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.core.config import digest_of
from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import DataError, NoDataYet
from tasks.core.files import atomic_path, lock
from tasks.data.results import WindowMessages
from tasks.features.results import Column, Frame
from tasks.predict.results import Predictions

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from tasks.train.classes import Classes
    from tasks.train.tabular.scoring import Model

PARTITIONS = "month=*/part-*.parquet"  # in a release's folder
CHUNK_ROWS = 50_000  # scored at a time: some tens of MB for a hundred columns


class Predictor(NamedTuple):
    """What `predict` uses of a release."""

    digest: str
    case: str
    model: Path
    columns: Sequence[Column]


def predict(predictor: Predictor, frame: Frame, as_of: datetime, out: Path, chunk: int = CHUNK_ROWS) -> Predictions:
    """Predict the examples of `frame` that this release has not predicted yet; existing predictions stay.

    The files' columns: example_id, event_timestamp (UTC), the features, prediction, release_digest and as_of. For two
    classes the prediction is the probability of the second; for more it is the class, with a score_CLASS for each. The
    digest is not named `release`: readers add the folder's key of that name, and some then refuse the file.
    Raises: DataError for an example later than `as_of`, a repeated example_id or a missing feature.
    """
    with open_partitions(out, predictor.case, predictor.digest) as partitions:
        folder = partitions.folder
        with connect(memory="2GB") as db:  # and sorts the rest on disk
            _check(db, frame, predictor.columns, as_of)
            _read_known(db, folder)
            part = _PartWriter(predictor, frame, as_of, chunk)
            months = [month for (month,) in db.execute("SELECT DISTINCT partition_month FROM frame").fetchall()]
            written = sum(part.write(db, month, folder / f"month={month}") for month in sorted(months))
        return partitions.result(as_of, frame, written, months)


@dataclass(frozen=True)
class Partitions:
    """The folder of a release's predictions, with one partition for each month."""

    case: str
    release_digest: str
    folder: Path

    def result(
        self, as_of: datetime, window: Frame | WindowMessages, written: int, months: Iterable[str]
    ) -> Predictions:
        """The predictions for a window, whose examples are of these months."""
        parts = [sorted((self.folder / f"month={month}").glob("part-*.parquet")) for month in sorted(months)]
        paths = [path for month in parts for path in month]
        return Predictions(
            case=self.case,
            release=self.release_digest,
            as_of=as_of,
            start=window.start,
            end=window.end,
            rows=window.rows,
            written=written,
            folder=self.folder,
            paths=tuple(paths),
            digest=digest_of([str(path.relative_to(self.folder)) for path in paths]),
        )


@contextmanager
def open_partitions(out: Path, case: str, release_digest: str) -> Iterator[Partitions]:
    """Lock the folder of a release's predictions.

    Raises: Busy when another run holds it.
    """
    folder = predictions_folder(out, case, release_digest)
    work = out / ".work" / f"{case}-{release_digest[:12]}"  # beside the cases, so that DVC may track a case's folder
    with lock(work.with_suffix(".lock"), f"Predicting {case}"):
        for leftover in folder.glob("month=*/.*.tmp"):  # of a killed run: under the lock no other process writes it
            leftover.unlink()
        yield Partitions(case, release_digest, folder)


def read_predictions(
    out: Path, case: str, release_digest: str, start: datetime | None = None, end: datetime | None = None
) -> pd.DataFrame:
    """The predictions of a release for start <= event_timestamp < end, sorted by time and id.

    Raises: NoDataYet when there are none in that window.
    """
    folder = predictions_folder(out, case, release_digest)
    rows = None
    if files := sorted(folder.glob(PARTITIONS)):
        with connect() as db:
            rows = db.execute(
                f"SELECT * FROM {scan_parquet(*files)} WHERE event_timestamp >= $start AND event_timestamp < $end "
                "ORDER BY event_timestamp, example_id",
                {
                    "start": start or datetime(1, 1, 1, tzinfo=UTC),
                    "end": end or datetime(9999, 1, 1, tzinfo=UTC),
                },
            ).df()
    if rows is None or rows.empty:
        raise NoDataYet(
            f"Release {release_digest[:12]} of {case} has no predictions in this window.",
            where=str(folder),
            found="nothing" if rows is None else f"no event_timestamp from {start or 'the first'} to {end or 'now'}",
            todo=f"Run driftline predict {case} first.",
        )
    return rows


def predictions_folder(out: Path, case: str, release_digest: str) -> Path:
    """The folder of a release's predictions."""
    return out / case / f"release={release_digest[:12]}"


def _check(db: duckdb.DuckDBPyConnection, frame: Frame, columns: Sequence[Column], as_of: datetime) -> None:
    db.execute(f"CREATE VIEW source AS FROM {scan_parquet(frame.path)}")
    available = set(db.table("source").columns)
    missing = [column.name for column in columns if column.name not in available]
    if missing:
        raise DataError(
            "The frame lacks features of the model.",
            where=str(frame.path),
            found=f"no {', '.join(missing)}",
            todo="Build the frame with the feature definitions that the release was sealed with.",
        )
    kinds = {"number": "DOUBLE", "text": "VARCHAR"}
    quoted = [(quote_identifier(column.name), kinds[column.kind]) for column in columns]
    features = ", ".join(f"{name}::{kind} AS {name}" for name, kind in quoted)
    db.execute(
        "CREATE VIEW frame AS SELECT example_id::VARCHAR AS example_id, event_timestamp::TIMESTAMPTZ AS "
        f"event_timestamp, {features}, strftime(event_timestamp::TIMESTAMPTZ, '%Y-%m') AS partition_month FROM source"
    )
    total, ids, last = db.execute(
        "SELECT count(*), count(DISTINCT example_id), max(event_timestamp) FROM frame"
    ).fetchall()[0]
    if ids != total:
        raise DataError(
            "An example_id names more than one example, or is empty.",
            where=str(frame.path),
            found=f"{ids} different in {total} rows",
            allowed="one row for each example",
            todo="Correct the examples SQL of the case.",
        )
    if last is not None and last > as_of:
        raise DataError(
            "An example lies after the as-of of this run.",
            where=str(frame.path),
            found=last.isoformat(),
            allowed=f"at most {as_of.isoformat()}",
            todo="End the window at the as-of, or predict as of a later moment.",
        )


def _read_known(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Create the table `known` with the ids that the release has predicted."""
    db.execute("CREATE TABLE known (example_id VARCHAR)")
    if files := sorted(folder.glob(PARTITIONS)):
        db.execute(
            f"INSERT INTO known SELECT example_id FROM {scan_parquet(*files)} SEMI JOIN frame USING (example_id)"
        )


@dataclass(frozen=True)
class _PartWriter:
    """Writes the parts of one run."""

    predictor: Predictor
    frame: Frame
    as_of: datetime
    chunk: int

    @cached_property
    def fitted(self) -> Model:
        from tasks.train.tabular import model_file

        return model_file.load(self.predictor.model)

    def write(self, db: duckdb.DuckDBPyConnection, month: str, folder: Path) -> int:
        """Write the new examples of a month into one file, if there are any, and return their number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from tasks.train.classes import prediction_columns
        from tasks.train.tabular import model_file

        new = f"FROM frame ANTI JOIN known USING (example_id) WHERE partition_month = '{month}'"
        rows: int
        ids: int
        rows, ids = db.execute(f"SELECT count(*), bit_xor(hash(example_id)) {new}").fetchall()[0]
        if not rows:
            return 0
        batches: pa.RecordBatchReader = db.sql(
            f"SELECT * EXCLUDE (partition_month) {new} ORDER BY event_timestamp, example_id"
        ).to_arrow_reader(self.chunk)
        part = folder / f"part-{self._name(rows, ids)}.parquet"
        schema = predictions_schema(self.predictor.columns, self.fitted.classes)
        with atomic_path(part) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for batch in batches:
                rows_of_batch = batch.to_pandas()
                predictions = model_file.predict(self.fitted, rows_of_batch, self.predictor.columns)
                predicted = rows_of_batch.assign(**prediction_columns(predictions, self.fitted.classes))
                predicted["release_digest"], predicted["as_of"] = self.predictor.digest, self.as_of
                writer.write_table(pa.Table.from_pandas(predicted, schema, preserve_index=False))
        return rows

    def _name(self, rows: int, ids: int) -> str:
        source = [self.frame.data_digest, self.frame.definitions_digest]
        return digest_of([self.predictor.digest, self.as_of.astimezone(UTC).isoformat(), source, rows, str(ids)])[:16]


def predictions_schema(columns: Sequence[Column], classes: Classes) -> pa.Schema:
    """The columns of a file of predictions."""
    import pyarrow as pa

    from tasks.train.classes import score_columns

    kinds = {"number": pa.float64(), "text": pa.string()}
    time = pa.timestamp("us", "UTC")
    outputs = [("prediction", pa.float64())]
    if len(classes) > 2:
        outputs = [("prediction", pa.string()), *((name, pa.float64()) for name in score_columns(classes))]
    return pa.schema(
        [
            ("example_id", pa.string()),
            ("event_timestamp", time),
            *((column.name, kinds[column.kind]) for column in columns),
            *outputs,
            ("release_digest", pa.string()),
            ("as_of", time),
        ]
    )
