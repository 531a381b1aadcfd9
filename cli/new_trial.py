"""Runs a new case's SQL on its file, as `run` will, and lets models be compared on the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import connect, quote_identifier
from tasks.core.errors import DataError
from tasks.core.files import temporary_folder

if TYPE_CHECKING:
    import pandas as pd

    from flows.case import TabularCase
    from tasks.features.results import Column

MAX_CELLS = 8_000_000  # of the examples that models are compared on


@dataclass(frozen=True)
class Choice:
    """The train section of a new case, and why it is that one."""

    train: dict[str, Any]
    left_out: dict[str, str]  # columns that are no features, and why
    reasons: tuple[str, ...]


def choose_model(case: TabularCase, files: Sequence[Path], text: Sequence[str], metric: str) -> Choice:
    """Compare models on the examples of a case whose source has these files.

    Raises: DataError when the file can't be read by the case, or no model can be fitted.
    """
    from tasks.train.tabular.proposal import propose_model

    examples, columns = read_examples(case, files)
    proposal = propose_model(examples, case.target, case.train.split, columns=columns, text=text, metric=metric)
    return Choice(proposal.train, proposal.left_out, proposal.reasons)


def read_examples(case: TabularCase, files: Sequence[Path]) -> tuple[pd.DataFrame, list[Column]]:
    """The examples of a case with one source, and its features; of a large table some examples.

    Raises: DataError.
    """
    import duckdb

    from tasks.data.reading.files import read_files
    from tasks.features.results import Column

    ((name, source),) = case.data.sources.items()
    with temporary_folder("new") as work, connect() as db:
        read_files(db, name, source, files=files, work=Path(work))
        try:
            db.execute(f"CREATE TABLE {quote_identifier(name)} AS {source.sql}")
            db.execute(f"CREATE TABLE new_examples AS {case.features.examples}")
        except duckdb.Error as error:
            found = str(error).strip().splitlines()[0]
            raise DataError(
                "The SQL for this file does not run.",
                where=str(files[0]),
                found=found,
                todo="Rename the columns that it names, and start again.",
            ) from error
        rows, ids = db.execute("SELECT count(*), count(DISTINCT example_id) FROM new_examples").fetchall()[0]
        if rows != ids:
            raise DataError(
                "The key does not name each row.",
                where="--key",
                found=f"{rows:,} rows with {ids:,} different keys",
                todo="Name further columns by --key, or none: rows are then named by their content.",
            )
        kinds = {column: kind for column, kind, *_ in db.execute("DESCRIBE new_examples").fetchall()}
        size = max(10_000, MAX_CELLS // len(kinds))
        sample = f" USING SAMPLE reservoir({size} ROWS) REPEATABLE (1)" if rows > size else ""
        db.execute("SET threads = 1")  # with several, a seed repeats nothing
        frame = db.sql(f"FROM new_examples{sample}").df()
    columns = [
        Column(name=feature, kind="text" if kinds[feature] == "VARCHAR" else "number", origin="request", entities=())
        for feature in case.features.request
    ]
    for column in columns:
        if column.kind == "number":
            frame[column.name] = frame[column.name].astype("float64")
    return frame, columns
