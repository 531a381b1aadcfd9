"""Scores the rows of a file, and writes the answers beside the file's own columns, in its order."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import DataError, InputError
from tasks.core.files import atomic_path, file_digest, scratch_folder
from tasks.predict.answers import answer_columns
from tasks.predict.file_rows import ROW, FileSource, read_rows
from tasks.predict.tabular import open_partitions, predictions_schema
from tasks.train.classes import prediction_columns
from tasks.train.tabular.categories import known_categories, unseen_categories

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from tasks.train.tabular.model_file import Model

CHUNK_ROWS = 50_000  # scored at a time
SHOWN = 3  # reasons
ANSWERS, STORED = "answers.parquet", "scored.parquet"  # in the working folder
FORMATS = {".csv": "(FORMAT csv, HEADER)", ".parquet": "(FORMAT parquet)", ".jsonl": "(FORMAT json)"}
PREFIX = "driftline_"  # of our columns where the file has one of their names

# from the join keys of rows to the features of all views
FeatureLookup = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class ReleasedModel:
    """What scoring a file uses of a release."""

    case: str
    digest: str
    model: Model
    columns: Sequence[Mapping[str, Any]]  # as sealed
    is_boolean: bool  # its target is true or false in the file
    look_up: FeatureLookup | None  # of the features of views


@dataclass(frozen=True)
class Destination:
    """Where the answers go."""

    out: Path
    stored: Path | None  # the folder of predictions, for monitoring; None: not stored
    at: datetime  # the moment of scoring


@dataclass
class FileScores:
    """What became of the rows of a file."""

    rows: int = 0
    scored: int = 0
    problems: list[str] = field(default_factory=list)  # the first reasons why rows were not scored
    unseen: dict[str, Counter[str]] = field(default_factory=dict)  # by column: categories and their rows


def default_out(file: Path) -> Path:
    """Where the answers for a file go: beside it, in its form."""
    suffix = file.suffix.lower()
    form = suffix if suffix in FORMATS else ".jsonl" if suffix in (".json", ".ndjson") else ".csv"
    return file.with_name(f"{file.name.split('.')[0] or file.stem}.predictions{form}")


def score_file(
    release: ReleasedModel, spec: FileSource, file: Path, to: Destination, chunk: int = CHUNK_ROWS
) -> FileScores:
    """Write every row of the file, in its order, with its prediction or the reason why there is none.

    Columns beside the file's: prediction, and of a classification score (its probability; of 0 and 1 that of 1) and
    score_CLASS; release; error. They begin with driftline_ where the file has one of these names.
    Raises: InputError for another form of output; DataError, CaseError when the file does not fit the case.
    """
    if to.out.suffix.lower() not in FORMATS or to.out.resolve() == file.resolve():
        raise InputError(
            "The answers can't be written to that file.",
            where="--out",
            found=str(to.out),
            allowed=f"another file than the one to score, that ends in {', '.join(FORMATS)}",
        )
    with scratch_folder(to.out.parent) as folder, connect(memory="2GB") as db:  # and the rest on disk
        work = Path(folder)
        names = read_rows(db, file, spec, work)
        _order_examples(db, release, spec)
        scores = _Scoring(release, to, work).run(db, chunk)
        own = ", ".join(f"c.{quote_identifier(name)}" for name in names)
        answers = ", ".join(
            f"a.{quote_identifier(a)} AS {quote_identifier(b)}" for a, b in _free_names(db, work, names)
        )
        with atomic_path(to.out) as temporary:
            rows = f"SELECT {own}, {answers} FROM cells c POSITIONAL JOIN {scan_parquet(work / ANSWERS)} a"
            db.execute(f"COPY ({rows}) TO {quote_literal(temporary)} {FORMATS[to.out.suffix.lower()]}")
        if to.stored and scores.scored:
            _store(work / STORED, release, file, to)
    return scores


def _store(rows: Path, release: ReleasedModel, file: Path, to: Destination) -> None:
    """Add the scored rows to the release's predictions, once for each content of a file."""
    assert to.stored is not None
    name = f"part-{digest_of([release.digest, file_digest(file)])[:16]}.parquet"
    with open_partitions(to.stored, release.case, release.digest) as partitions:
        if not list(partitions.folder.glob(f"month=*/{name}")):
            with atomic_path(partitions.folder / f"month={to.at.astimezone(UTC):%Y-%m}" / name) as temporary:
                shutil.copyfile(rows, temporary)


def _free_names(db: duckdb.DuckDBPyConnection, work: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Our columns, and their names beside those of the file."""
    answers = db.read_parquet(str(work / ANSWERS)).columns
    taken, prefix = {name.lower() for name in names}, ""
    while any((prefix + name).lower() in taken for name in answers):
        prefix += PREFIX
    return [(name, prefix + name) for name in answers]


def _order_examples(db: duckdb.DuckDBPyConnection, release: ReleasedModel, spec: FileSource) -> None:
    """Create `ordered`: a row for each of the file, with its features as the model takes them, or the problem."""
    features, problems = (
        [],
        ["WHEN fault IS NOT NULL THEN fault", f"WHEN e.{ROW} IS NULL THEN 'left out by the SQL of the case'"],
    )
    available = {name.lower() for name in db.table("examples").columns}
    for column in release.columns:
        name, value = quote_identifier(column["name"]), f"e.{quote_identifier(column['name'])}"
        if column["name"].lower() not in available:
            if column["origin"] == "request":
                raise DataError(
                    f"The examples lack {column['name']}.",
                    where="features.examples",
                    found=", ".join(sorted(available)),
                )
            continue  # looked up
        if column["kind"] == "number":
            number = f"TRY_CAST({value} AS DOUBLE)"
            features.append(f"CASE WHEN NOT isnan({number}) THEN {number} END AS {name}")
            bad = f"{value} IS NOT NULL AND coalesce(isinf({number}), true)"
            problems.append(f"WHEN {bad} THEN {quote_literal(column['name'] + ' is no number: ')} || {value}::VARCHAR")
        else:
            features.append(f"{value}::VARCHAR AS {name}")
        if not column["nullable"]:
            problem = f"{column['name']} is missing, which the model does not take"
            problems.append(f"WHEN {value} IS NULL THEN {quote_literal(problem)}")
    keys = [
        f"e.{quote_identifier(key)}"
        for key in spec.needed
        if key.lower() in available and key not in {c["name"] for c in release.columns}
    ]
    identity = "e.example_id::VARCHAR AS example_id" if "example_id" in available else "NULL::VARCHAR AS example_id"
    db.execute(
        f"CREATE TABLE ordered AS SELECT {', '.join([identity, *features, *keys])}, "
        f"CASE {' '.join(problems)} END AS error "
        f"FROM cells LEFT JOIN examples e ON e.{ROW} = cells.{ROW} ORDER BY cells.{ROW}"
    )


@dataclass
class _Scoring:
    """Scores the examples in batches, and writes answers and, where they are stored, examples as Parquet."""

    release: ReleasedModel
    to: Destination
    work: Path

    def run(self, db: duckdb.DuckDBPyConnection, chunk: int) -> FileScores:
        import pyarrow.parquet as pq

        model, scores = self.release.model, FileScores()
        with ExitStack() as files:
            answers: pq.ParquetWriter | None = None
            schema = predictions_schema(model.columns, model.classes)
            stored = files.enter_context(pq.ParquetWriter(self.work / STORED, schema)) if self.to.stored else None
            for batch in db.sql("FROM ordered").to_arrow_reader(chunk):
                rows = batch.to_pandas()
                good = rows["error"].isna().to_numpy()
                _add_looked_up(rows, good, self.release)
                predictions = _predict(model, rows, good)
                _count(scores, model, rows, good)
                table = self._answers(rows, good, predictions)
                answers = answers or files.enter_context(pq.ParquetWriter(self.work / ANSWERS, table.schema))
                answers.write_table(table)
                if stored:
                    stored.write_table(self._stored(rows[good], predictions, schema))
        if answers is None:
            raise DataError("The file has no row.", found="0 rows")
        return scores

    def _answers(self, rows: pd.DataFrame, good: np.ndarray, predictions: np.ndarray) -> pa.Table:
        import pyarrow as pa

        classes, is_boolean = self.release.model.classes, self.release.is_boolean
        return pa.table(
            {
                **answer_columns(predictions, good, classes, is_boolean=is_boolean),
                "release": pa.array([self.release.digest[:12] if each else None for each in good], pa.string()),
                "error": pa.array(rows["error"], pa.string(), from_pandas=True),
            }
        )

    def _stored(self, rows: pd.DataFrame, predictions: np.ndarray, schema: pa.Schema) -> pa.Table:
        import pyarrow as pa

        scored = rows.assign(
            **prediction_columns(predictions, self.release.model.classes),
            event_timestamp=self.to.at,
            release_digest=self.release.digest,
            as_of=self.to.at,
        )
        return pa.Table.from_pandas(scored, schema, preserve_index=False)


def _count(scores: FileScores, model: Model, rows: pd.DataFrame, good: np.ndarray) -> None:
    known = known_categories(model)
    for column, texts in unseen_categories(known, {name: rows.loc[good, name].tolist() for name in known}).items():
        counts = rows.loc[good, column].str.strip().value_counts()
        scores.unseen.setdefault(column, Counter()).update({text: int(counts[text]) for text in texts})
    scores.rows += len(rows)
    scores.scored += int(good.sum())
    scores.problems += rows.loc[~good, "error"].head(SHOWN - len(scores.problems)).tolist()


def _add_looked_up(rows: pd.DataFrame, good: np.ndarray, release: ReleasedModel) -> None:
    """Add the features of views, by the join keys of the rows."""
    import numpy as np

    absent = [column for column in release.columns if column["name"] not in rows]
    if not absent:
        return
    if release.look_up is None:
        raise DataError(
            "The features of the case's views can't be looked up: there is no online store yet.",
            found=f"no {', '.join(column['name'] for column in absent)} in the file",
            todo="Create it with a release: driftline run CASE",
        )
    keys = sorted({key for column in absent for key in column["entities"]})
    entities = [dict(zip(keys, map(_key, row), strict=True)) for row in rows.loc[good, keys].itertuples(index=False)]
    features = release.look_up(entities) if entities else []
    for column in absent:
        values = np.full(len(rows), None, dtype=object)
        values[good] = [each[column["name"]] for each in features]
        rows[column["name"]] = values if column["kind"] == "text" else values.astype("float64")


def _key(value: Any) -> Any:
    """A join key from pandas, which makes a whole number a float where another row has none."""
    if value is None or value != value:
        return None
    return int(value) if isinstance(value, float) else value


def _predict(model: Model, rows: pd.DataFrame, good: np.ndarray) -> np.ndarray:
    """The predictions of the good rows; a row that the model refuses is good no longer, with its error."""
    import numpy as np

    from tasks.train.tabular.model_file import predict

    names = [column.name for column in model.columns]
    try:
        return predict(model, rows.loc[good, names])
    except DataError:
        predictions = []
        for place in np.flatnonzero(good).tolist():
            try:
                predictions.append(predict(model, rows.iloc[place : place + 1][names])[0])
            except DataError as error:
                good[place] = False
                rows.loc[place, "error"] = f"{error.what} {error.found}"
        return np.array(predictions)
