"""Score a frame with a release, month by month, into Parquet that holds each example once.

OUT/CASE/release=DIGEST12/month=YYYY-MM/part-DIGEST16.parquet. A part is named by what it was made of and appears
whole, so a run started again after a kill finds the finished months and makes the others as they would have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.config import digest_of
from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import DataError, NotReady
from tasks.core.files import atomic_path, lock
from tasks.data.results import WindowMessages
from tasks.features.results import Column, Frame
from tasks.predict.results import Predictions

PARTS = "month=*/part-*.parquet"  # of a release's folder

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from tasks.train.tabular.scoring import Model

CHUNK = 50_000  # rows scored at a time: some tens of MB for a hundred columns


def predict(
    release_digest: str,
    case: str,
    model: Path,
    columns: Sequence[Column],
    frame: Frame,
    as_of: datetime,
    out: Path,
    chunk: int = CHUNK,
) -> Predictions:
    """Predict the examples of `frame` that this release has not predicted yet; what it once said stays.

    The files' columns: example_id, event_timestamp (UTC), the features, prediction, release_digest and as_of. Of two
    classes the prediction is the probability of the second, of more it is the class, and score_CLASS each one's. The
    digest is not called `release`, as a reader adds the folder's key of that name and some then refuse the file.
    Raises: DataError for an example later than `as_of`, a repeated example_id or a missing feature.
    """
    with open_partitions(out, case, release_digest) as (folder, _):
        with connect(memory="2GB") as db:  # and sorts the rest on disk
            _check(db, frame, columns, as_of)
            _read_known(db, folder)
            part = _Part(release_digest, model, columns, frame, as_of, chunk)
            months = [month for (month,) in db.execute("SELECT DISTINCT partition_month FROM frame").fetchall()]
            written = sum(part.write(db, month, folder / f"month={month}") for month in sorted(months))
        return build_result(case, release_digest, as_of, frame, written, folder, months)


@contextmanager
def open_partitions(out: Path, case: str, release_digest: str) -> Iterator[tuple[Path, Path]]:
    """Hold the folder of a release's predictions; give it, and where else this run may write.

    Raises: Busy when another run holds it.
    """
    folder = release_folder(out, case, release_digest)
    work = out / ".work" / f"{case}-{release_digest[:12]}"  # beside the cases, so that DVC may track a case's folder
    with lock(work.with_suffix(".lock"), f"Predicting {case}"):
        for leftover in folder.glob("month=*/.*.tmp"):  # of a killed run: we hold the lock, so nobody writes it
            leftover.unlink()
        yield folder, work


def build_result(
    case: str,
    release_digest: str,
    as_of: datetime,
    asked: Frame | WindowMessages,
    written: int,
    folder: Path,
    months: Iterable[str],
) -> Predictions:
    """What lies in the folder for what was asked, which is of these months."""
    paths = [path for month in sorted(months) for path in sorted((folder / f"month={month}").glob("part-*.parquet"))]
    return Predictions(
        case=case,
        release=release_digest,
        as_of=as_of,
        start=asked.start,
        end=asked.end,
        rows=asked.rows,
        written=written,
        folder=folder,
        paths=tuple(paths),
        digest=digest_of([str(path.relative_to(folder)) for path in paths]),
    )


def read_predictions(
    out: Path, case: str, release_digest: str, start: datetime | None = None, end: datetime | None = None
) -> pd.DataFrame:
    """Read what a release predicted for start <= event_timestamp < end, sorted by time and id.

    Raises: NothingYet when there is nothing in that window.
    """
    folder = release_folder(out, case, release_digest)
    rows = None
    if files := sorted(folder.glob(PARTS)):
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
        raise NotReady(
            f"Release {release_digest[:12]} of {case} has no predictions in this window.",
            where=str(folder),
            found="nothing" if rows is None else f"no event_timestamp from {start or 'the first'} to {end or 'now'}",
            todo=f"Make them first: driftline predict {case}.",
        )
    return rows


def release_folder(out: Path, case: str, release_digest: str) -> Path:
    """Where a release's predictions lie."""
    return out / case / f"release={release_digest[:12]}"


def _check(db: duckdb.DuckDBPyConnection, frame: Frame, columns: Sequence[Column], as_of: datetime) -> None:
    db.execute(f"CREATE VIEW source AS FROM {scan_parquet(frame.path)}")
    there = set(db.table("source").columns)
    missing = [column.name for column in columns if column.name not in there]
    if missing:
        raise DataError(
            "The frame lacks features that the model takes.",
            where=str(frame.path),
            found=f"no {', '.join(missing)}",
            todo="Build the frame with the feature definitions that the release was sealed with.",
        )
    kinds = {"number": "DOUBLE", "text": "VARCHAR"}
    named = [(quote_identifier(column.name), kinds[column.kind]) for column in columns]
    features = ", ".join(f"{name}::{kind} AS {name}" for name, kind in named)
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
            allowed="one row an example",
            todo="Correct the examples SQL of the case.",
        )
    if last is not None and last > as_of:
        raise DataError(
            "An example lies after the moment that this run pretends to be at.",
            where=str(frame.path),
            found=last.isoformat(),
            allowed=f"at most {as_of.isoformat()}",
            todo="End the window at the as-of, or predict as of a later moment.",
        )


def _read_known(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make the table `known`: the ids of what the release has predicted."""
    db.execute("CREATE TABLE known (example_id VARCHAR)")
    if files := sorted(folder.glob(PARTS)):
        db.execute(
            f"INSERT INTO known SELECT example_id FROM {scan_parquet(*files)} SEMI JOIN frame USING (example_id)"
        )


@dataclass(frozen=True)
class _Part:
    """What all parts of one run have in common."""

    release_digest: str
    model: Path
    columns: Sequence[Column]
    frame: Frame
    as_of: datetime
    chunk: int

    @cached_property
    def fitted(self) -> Model:
        from tasks.train.tabular import model_file

        return model_file.load(self.model)

    def write(self, db: duckdb.DuckDBPyConnection, month: str, folder: Path) -> int:
        """Write one file with the month's examples that are new, if there are any; return their number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from tasks.train.classes import columns_of
        from tasks.train.tabular import model_file

        new = f"FROM frame ANTI JOIN known USING (example_id) WHERE partition_month = '{month}'"
        rows, ids = db.execute(f"SELECT count(*), bit_xor(hash(example_id)) {new}").fetchall()[0]
        if not rows:
            return 0
        batches: pa.RecordBatchReader = db.sql(
            f"SELECT * EXCLUDE (partition_month) {new} ORDER BY event_timestamp, example_id"
        ).to_arrow_reader(self.chunk)
        part = folder / f"part-{self._name(rows, ids)}.parquet"
        with atomic_path(part) as temporary, pq.ParquetWriter(temporary, self._schema()) as writer:
            for batch in batches:
                piece = batch.to_pandas()
                answers = model_file.predict(self.fitted, piece, self.columns)
                piece = piece.assign(**columns_of(answers, self.fitted.classes))
                piece["release_digest"], piece["as_of"] = self.release_digest, self.as_of
                writer.write_table(pa.Table.from_pandas(piece, self._schema(), preserve_index=False))
        return rows

    def _name(self, rows: int, ids: int) -> str:
        source = [self.frame.data_digest, self.frame.definitions_digest]
        return digest_of([self.release_digest, self.as_of.astimezone(UTC).isoformat(), source, rows, str(ids)])[:16]

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        from tasks.train.classes import score_columns

        kinds = {"number": pa.float64(), "text": pa.string()}
        time = pa.timestamp("us", "UTC")
        classes = self.fitted.classes
        build_result = [("prediction", pa.float64())]
        if len(classes) > 2:
            build_result = [("prediction", pa.string()), *((name, pa.float64()) for name in score_columns(classes))]
        return pa.schema(
            [
                ("example_id", pa.string()),
                ("event_timestamp", time),
                *((column.name, kinds[column.kind]) for column in self.columns),
                *build_result,
                ("release_digest", pa.string()),
                ("as_of", time),
            ]
        )
