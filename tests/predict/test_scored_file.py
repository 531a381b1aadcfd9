"""`driftline predict CASE FILE`: the answers beside the rows of any file of the source's form (kind of row 44)."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError, InputError
from tasks.data.config import Source
from tasks.data.reading.config import ColumnDefinition
from tasks.predict.file_rows import FileSource, find_source
from tasks.predict.scored_file import Destination, FileScores, ReleasedModel, default_out, score_file
from tasks.predict.tabular import read_predictions
from tasks.train.tabular import model_file
from tests.predict.small import RELEASE

NOW = datetime(2026, 5, 4, tzinfo=UTC)
EXAMPLES = "SELECT id AS example_id, size, colour, bought FROM shop"
TYPES = {"id": "text", "size": "number", "colour": "text", "bought": "boolean"}
SEALED = [
    {"name": "size", "kind": "number", "origin": "request", "entities": [], "nullable": True},
    {"name": "colour", "kind": "text", "origin": "request", "entities": [], "nullable": True},
]
ROWS = ("id,size,colour,bought\n", "007,1.50,red,\n", "008,,green,true\n", '"a,9",-2,blue,\n')


def spec(examples: str = EXAMPLES, sql: str = "SELECT * FROM raw", **types: str) -> FileSource:
    columns = {name: ColumnDefinition.model_validate({"type": type_}) for name, type_ in (TYPES | types).items()}
    source = Source.model_validate({"uri": "file://shop.csv", "key": ["id"], "sql": sql, "columns": TYPES | types})
    return FileSource("shop", source, columns, examples, ("size", "colour"))


def release(model: Path, columns: Any = SEALED, look_up: Any = None) -> ReleasedModel:
    return ReleasedModel("shop", RELEASE, model_file.load(model), columns, is_boolean=False, look_up=look_up)


def score(
    folder: Path, model: Path, *lines: str, name: str = "shop.csv", **source: Any
) -> tuple[FileScores, list[Any]]:
    """The scores of a CSV file, and the rows of the answers."""
    file, out = folder / name, folder / "out.csv"
    file.write_text("".join(lines), encoding="utf-8")
    scores = score_file(release(model), spec(**source), file, Destination(out, None, NOW))
    with out.open(newline="") as content:
        return scores, list(csv.DictReader(content))


def test_answers_stand_beside_the_files_own_cells(tmp_path: Path, model: Path) -> None:
    """Cells as they were written, rows in their order, and the model's own predictions, to the last digit."""
    scores, rows = score(tmp_path, model, *ROWS)
    own = [{name: row[name] for name in TYPES} for row in rows]
    with (tmp_path / "shop.csv").open(newline="") as content:
        assert own == list(csv.DictReader(content))
    values = pd.DataFrame({"size": [1.5, np.nan, -2], "colour": ["red", "green", "blue"]})
    expected = model_file.predict(model_file.load(model), values)
    assert [float(row["score"]) for row in rows] == expected.tolist()
    assert [row["prediction"] for row in rows] == [str(int(share >= 0.5)) for share in expected]
    assert {row["release"] for row in rows} == {RELEASE[:12]}
    assert (scores.rows, scores.scored, scores.problems, scores.unseen) == (3, 3, [], {})


def test_a_row_that_cant_be_scored_says_why(tmp_path: Path, model: Path) -> None:
    """A cell that does not fit, and a line that is no row: none vanishes or moves, and the others are scored."""
    scores, rows = score(tmp_path, model, *ROWS, "010,big,red,\n", "011,3\n", "012,2,violet,\n")
    assert (scores.rows, scores.scored) == (6, 4)
    assert [row["id"] for row in rows] == ["007", "008", "a,9", "010", "", "012"]
    assert rows[3]["error"] == "size is not a finite number that 64 bits hold: big"
    assert rows[4]["error"].startswith("line 6: 2 fields, the header has 4")
    assert rows[3]["prediction"] == rows[4]["prediction"] == ""
    assert scores.problems == [rows[3]["error"], rows[4]["error"]]
    assert scores.unseen == {"colour": {"violet": 1}}, "kind of row 39"


def test_the_cases_sql_makes_the_features(tmp_path: Path, model: Path) -> None:
    """Source and examples as in training; a row that they leave out is there, with the reason; order stays."""
    sql = "SELECT id, size, lower(colour) AS colour, bought, row_number() OVER (PARTITION BY colour) AS nth FROM raw"
    examples = (
        "WITH e AS (SELECT * FROM shop WHERE id <> '008') SELECT id AS example_id, size * 2 AS size, colour FROM e"
    )
    _, rows = score(tmp_path, model, *(line.replace("red", "RED") for line in ROWS), sql=sql, examples=examples)
    values = pd.DataFrame({"size": [3.0, -4], "colour": ["red", "blue"]})
    expected = model_file.predict(model_file.load(model), values).tolist()
    assert [float(row["score"] or "nan") for row in (rows[0], rows[2])] == expected
    assert rows[1]["error"] == "left out by the SQL of the case"


@pytest.mark.parametrize(
    "examples",
    ["SELECT colour, sum(size) AS size FROM shop GROUP BY colour", f"{EXAMPLES} UNION ALL {EXAMPLES}"],
    ids=["groups", "repeats"],
)
def test_sql_that_mixes_rows_is_refused(tmp_path: Path, model: Path, examples: str) -> None:
    with pytest.raises(CaseError, match="row by row"):
        score(tmp_path, model, *ROWS, examples=examples)


def test_a_file_without_the_target_is_scored(tmp_path: Path, model: Path) -> None:
    """What is unknown when one predicts may be absent, and so may columns that the source does not know be there."""
    _, rows = score(tmp_path, model, "note,id,size,colour\n", "x,1,1.5,red\n")
    assert rows[0]["note"] == "x"
    assert rows[0]["score"]
    with pytest.raises(DataError, match="lacks colour"):
        score(tmp_path, model, "id,size\n", "1,1.5\n")


def test_no_column_of_the_file_is_shadowed(tmp_path: Path, model: Path) -> None:
    """Kind of row 8: with a column `Score` of the file, ours have a prefix."""
    _, rows = score(tmp_path, model, "id,size,colour,Score\n", "1,1.5,red,mine\n")
    assert rows[0]["Score"] == "mine"
    assert list(rows[0])[4:] == [f"driftline_{name}" for name in ("prediction", "score", "release", "error")]


def test_a_gap_that_the_model_does_not_take_is_named(tmp_path: Path, model: Path) -> None:
    strict = [{**SEALED[0], "nullable": False}, SEALED[1]]
    (tmp_path / "shop.csv").write_text("".join(ROWS))
    out = tmp_path / "out.csv"
    score_file(release(model, strict), spec(), tmp_path / "shop.csv", Destination(out, None, NOW))
    assert pd.read_csv(out)["error"].fillna("").tolist() == ["", "size is missing, which the model does not take", ""]


def test_a_line_that_is_no_json_is_one_row(tmp_path: Path, model: Path) -> None:
    lines = ['{"id": "1", "size": 1.5, "colour": "red"}', "{no json", '{"id": "2", "size": 2, "colour": "red"}']
    (tmp_path / "shop.jsonl").write_text("\n".join(lines))
    to = Destination(tmp_path / "out.csv", None, NOW)
    assert score_file(release(model), spec(), tmp_path / "shop.jsonl", to).rows == 3
    assert pd.read_csv(to.out)["error"].fillna("").tolist() == ["", "not JSON", ""]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_parquet_and_json_keep_their_types(tmp_path: Path, model: Path, suffix: str) -> None:
    """The answers come in the file's own form."""
    table = pd.DataFrame({"id": ["a", "b"], "size": [1.5, 2.0], "colour": ["red", None], "bought": [True, False]})
    file = tmp_path / f"shop{suffix}"
    out = default_out(file)
    table.to_parquet(file) if suffix == ".parquet" else table.to_json(file, orient="records", lines=True)
    score_file(release(model), spec(), file, Destination(out, None, NOW))
    assert out.name == f"shop.predictions{suffix}"
    read = pd.read_parquet(out) if suffix == ".parquet" else pd.read_json(out, lines=True, precise_float=True)
    pd.testing.assert_frame_equal(read[list(table)], table, check_dtype=False)
    assert read["score"].tolist() == model_file.predict(model_file.load(model), table[["size", "colour"]]).tolist()


def test_batches_and_sizes_change_nothing(tmp_path: Path, model: Path) -> None:
    """Many batches give the answers of one, in the file's order."""
    table = pd.DataFrame({"id": [f"{i:05d}" for i in range(5000)], "size": np.arange(5000) % 7 / 2, "colour": "red"})
    table.to_csv(tmp_path / "shop.csv", index=False)
    outs = []
    for chunk in (64, 50_000):
        to = Destination(tmp_path / f"{chunk}.csv", None, NOW)
        assert score_file(release(model), spec(), tmp_path / "shop.csv", to, chunk).scored == 5000
        outs.append(pd.read_csv(to.out, dtype={"id": str}))
    pd.testing.assert_frame_equal(*outs)
    assert outs[0]["id"].tolist() == table["id"].tolist()


def test_scored_rows_are_stored_once(tmp_path: Path, model: Path) -> None:
    """For monitoring, as the release's predictions at the moment of scoring; the same file again adds nothing."""
    (tmp_path / "shop.csv").write_text("".join(ROWS))
    for day in (NOW, datetime(2026, 7, 1, tzinfo=UTC)):
        score_file(release(model), spec(), tmp_path / "shop.csv", Destination(tmp_path / "o.csv", tmp_path / "p", day))
    stored = read_predictions(tmp_path / "p", "shop", RELEASE)
    assert stored["example_id"].tolist() == ["007", "008", "a,9"]
    assert set(stored["event_timestamp"]) == {pd.Timestamp(NOW)}
    assert stored["colour"].tolist() == ["red", "green", "blue"]


def test_features_of_views_are_looked_up(tmp_path: Path, model: Path) -> None:
    """By the join keys that the case's SQL makes of each row."""
    viewed = [{**SEALED[0], "origin": "sizes", "entities": ["id"]}, SEALED[1]]
    requested: list[Any] = []

    def look_up(keys: Any) -> Any:
        requested.extend(keys)
        return [{"size": 1.5 if key["id"] == "007" else None} for key in keys]

    examples = "SELECT id AS example_id, id, colour FROM shop"
    source = spec(examples)
    (tmp_path / "shop.csv").write_text("".join(ROWS))
    needed = FileSource("shop", source.source, source.columns, examples, ("colour", "id"))
    to = Destination(tmp_path / "out.csv", None, NOW)
    score_file(release(model, viewed, look_up), needed, tmp_path / "shop.csv", to)
    assert [key["id"] for key in requested] == ["007", "008", "a,9"]
    values = pd.DataFrame({"size": [1.5, np.nan, np.nan], "colour": ["red", "green", "blue"]})
    expected = model_file.predict(model_file.load(model), values).tolist()
    assert pd.read_csv(to.out, float_precision="round_trip")["score"].tolist() == expected
    with pytest.raises(DataError, match="no online store"):
        score_file(release(model, viewed), needed, tmp_path / "shop.csv", to)


@pytest.mark.parametrize("out", ["out.txt", "shop.csv"])
def test_another_output_is_refused(tmp_path: Path, model: Path, out: str) -> None:
    """An unknown form, or the file itself, which stays as it is."""
    (tmp_path / "shop.csv").write_text("".join(ROWS))
    with pytest.raises(InputError, match="can't be written"):
        score_file(release(model), spec(), tmp_path / "shop.csv", Destination(tmp_path / out, None, NOW))
    assert (tmp_path / "shop.csv").read_text() == "".join(ROWS)


def test_the_file_stands_for_the_examples_source(tmp_path: Path) -> None:
    """Its columns are the declared ones, or those that were ingested."""
    source = Source.model_validate({"uri": "file://shop.csv", "key": ["id"]})
    sources = {"shop": source, "other": source}
    table = pd.DataFrame({"id": ["a"], "n": np.array([1], "int32"), "day": [NOW]})
    (tmp_path / "shop").mkdir()
    table.to_parquet(tmp_path / "shop" / "all.parquet")
    name, columns = find_source(sources, EXAMPLES, tmp_path)
    assert (name, {key: column.type for key, column in columns.items()}) == (
        "shop",
        {"id": "text", "n": "integer", "day": "timestamp"},
    )
    with pytest.raises(CaseError, match="several tables"):
        find_source(sources, "SELECT * FROM shop JOIN other USING (id)", tmp_path)


def test_classes_are_the_files_own_words() -> None:
    """Kind of row 27: Yes and No, with each one's probability; JSON booleans are true and false."""
    from tasks.predict.answers import answer_columns

    good = np.array([True, False, True])
    named = answer_columns(np.array([0.9, 0.2]), good, ("No", "Yes"), is_boolean=False)
    assert {name: column.to_pylist() for name, column in named.items()} == {
        "prediction": ["Yes", None, "No"],
        "score": [0.9, None, 0.8],
        "score_No": [pytest.approx(0.1), None, 0.8],
        "score_Yes": [0.9, None, 0.2],
    }
    booleans = answer_columns(np.array([0.9, 0.2]), good, (0, 1), is_boolean=True)
    assert booleans["prediction"].to_pylist() == [True, None, False]
    numbers = answer_columns(np.array([3.5, 4.0]), good, (), is_boolean=False)
    assert numbers["prediction"].to_pylist() == [3.5, None, 4.0]
