"""What `driftline new` decides over a stranger's table, and that each decision is stated."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from cli.new_columns import TablePlan, decisions
from cli.new_files import DataFiles
from cli.new_options import TableOptions, guess_task
from cli.new_profile import profile_file
from cli.new_table import table_name, write_tabular_case
from cli.new_trial import read_examples
from flows.case import TabularCase
from tasks.core.errors import DataError, InputError
from tasks.data.profile.results import ColumnProfile


class Begun:
    """A case that is proposed for a file, without a comparison of models."""

    def __init__(self, file: Path, target: str, **options: Any) -> None:
        data = DataFiles(file.name, f"file://{file}", "", [file])
        profiled = profile_file("shop", data, TableOptions(target=target, **options))
        assert profiled.plan is not None
        self.plan: TablePlan = profiled.plan
        self.text = "\n".join(write_tabular_case(self.plan, profiled.source()))
        self.case = TabularCase.model_validate({**yaml.safe_load(self.text), "name": "shop"})
        self.examples = read_examples(self.case, [file])[0]

    @property
    def source(self) -> Any:
        return next(iter(self.case.data.sources.values()))

    def reasons(self, group: str) -> dict[str, str]:
        return {name: why for of, name, why in decisions(self.plan) if of == group}


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin a case from columns of equal length."""
    from tasks.core.settings import settings

    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    settings.cache_clear()

    def begin(columns: dict[str, Any], target: str = "y", file: str = "rows.csv", **options: Any) -> Begun:
        path = tmp_path / file
        pd.DataFrame(columns).to_csv(path, index=False)
        return Begun(path, target, **options)

    yield begin
    monkeypatch.undo()
    settings.cache_clear()


def numbers(n: int = 300, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [round(source.gauss(0, 1), 3) for _ in range(n)]


def words(values: list[str], n: int = 300, seed: int = 0) -> list[str]:
    return random.Random(seed).choices(values, k=n)


def test_rows_without_a_key_keep_their_ids(begin):
    """Kind 24: sorted anew, with a row in the middle and other outcomes, every other row has the id that it had."""
    columns = {"a": words(["x", "y", "z"]), "b": [i % 40 for i in range(300)], "y": words(["no", "yes"], seed=1)}
    before = begin(columns)
    frame = pd.DataFrame(columns).sort_values(["b", "a"], ascending=False)
    frame["y"] = frame["y"].map({"no": "yes", "yes": "no"})
    extra = pd.DataFrame({"a": ["new"], "b": [7], "y": ["no"]})
    after = begin(pd.concat([frame.iloc[:90], extra, frame.iloc[90:]]).to_dict("list"))
    ids = [set(each.examples["example_id"]) for each in (before, after)]
    assert len(ids[0]) == 300, "equal rows have ids of their own"
    assert len(ids[1] - ids[0]) == 1
    assert ids[0] < ids[1]
    merged = before.examples.merge(after.examples, on="example_id")
    assert (merged["a_x"] == merged["a_y"]).all()
    assert (merged["b_x"] == merged["b_y"]).all()


def test_no_column_of_the_user_is_shadowed(begin):
    """Kind 25: the id has a name that no column has, in any case of letters."""
    begun = begin({"row_id": words(["a", "b"]), "ROW_CONTENT": numbers(), "y": numbers(seed=1)})
    assert begun.source.key == ("row_id_2",)
    assert begun.case.features.request == ("row_id", "ROW_CONTENT")
    assert set(begun.examples["row_id"]) == {"a", "b"}


def test_a_column_that_the_platform_has_is_renamed(begin):
    """Kind 25: a feature called outcome becomes its_outcome, with its values, and the case says so."""
    outcomes = words(["late", "ok"])
    begun = begin({"outcome": outcomes, "As_Of": numbers(), "y": numbers(seed=1)})
    assert begun.case.features.request == ("its_outcome", "its_As_Of")
    assert sorted(begun.examples["its_outcome"]) == sorted(outcomes)
    assert set(begun.reasons("renamed")) == {"outcome", "As_Of"}


def test_a_target_that_the_platform_has_is_renamed(begin):
    """A target called outcome, as many are, is its_outcome in examples, and monitoring finds it in files."""
    begun = begin({"a": numbers(), "outcome": words(["late", "ok"])}, target="outcome")
    assert begun.case.target.column == "its_outcome"
    assert set(begun.examples["its_outcome"]) == {"late", "ok"}
    assert set(begun.reasons("renamed")) == {"outcome"}


@pytest.mark.parametrize("file", ["2024.csv", "no.csv", "on.csv", "null.csv", "1e3.csv", "select.csv", "a: b#.csv"])
def test_names_that_yaml_and_sql_misread(begin, file):
    """Kind 17: files and columns are called as the user calls them."""
    odd = ["no", "on", "null", "1e3", "at", "select", 'a"b: c', "2024", "# x", "line\nbreak", "=", " ~"]
    begun = begin({**{name: numbers(seed=i) for i, name in enumerate(odd)}, "y": numbers(seed=50)}, file=file)
    assert [name.strip() for name in begun.case.features.request] == [name.strip() for name in odd]
    assert len(begun.examples) == 300
    assert table_name(file) in begun.case.data.sources


def test_every_wrong_option_is_named_at_once(begin):
    """Kind 32: with what is right."""
    options = {"key": ("code",), "time": "a", "positive": "maybe", "metric": "r2", "text": ("a",)}
    with pytest.raises(InputError) as error:
        begin({"code": words(["x", "z"]), "a": numbers(), "y": words(["no", "yes"], seed=1)}, **options)
    for problem in (
        "--key code: values repeat",
        "--time a: no valid time in each row: number",
        "--positive maybe: y holds",
        "--metric r2: not one of a classification",
        "--text a: number",
    ):
        assert problem in str(error.value)
    with pytest.raises(InputError, match=r"--drop ages: no such column; did you mean age\?"):
        begin({"age": numbers(), "y": numbers(seed=1)}, drop=("ages",))


@pytest.mark.parametrize(
    ("counts", "name", "task"),
    [
        ({"no": 10, "yes": 20}, "y", "classification"),
        ({"0": 50, "1": 50}, "y", "classification"),
        ({"1": 60, "2": 71, "3": 48}, "class", "classification"),
        ({str(i): 180 for i in range(10)}, "digit", "classification"),
        ({"1": 70, "2": 76, "3": 17, "5": 13, "6": 9, "7": 29}, "glass", "classification"),
        ({"0": 90, "1": 60, "2": 20, "3": 5}, "visits", "regression"),
        ({"1": 5, "2": 40, "3": 160, "4": 150, "5": 30}, "marks", "regression"),
        ({"1": 60, "2": 55, "3": 61, "4": 58}, "rating", "regression"),
    ],
)
def test_classes_counts_and_marks(counts, name, task):
    """Kinds 16 and 32: codes of classes are even or jump, counts and marks rise and fall."""
    kind = "integer" if next(iter(counts)).isdigit() else "text"
    column = ColumnProfile(name=name, type=kind, counts=counts, distinct=len(counts))
    assert guess_task(column)[0] == task


def test_rows_without_a_target_are_counted(begin):
    """Kind 33: with the share, and what it may mean."""
    target = [None if i % 3 == 0 else value for i, value in enumerate(numbers(seed=1))]
    begun = begin({"a": numbers(), "y": target})
    assert "100 of 300 rows (33%) have none" in begun.text
    assert begun.plan.known == 200


def test_a_target_of_one_value_is_refused_with_a_hint(begin):
    """Kind 33: an empty target may mean that nothing happened."""
    with pytest.raises(InputError, match="if empty means that nothing happened"):
        begin({"a": numbers(), "y": ["failed" if i % 9 == 0 else None for i in range(300)]})


def test_a_leak_is_named_and_not_left_out(begin):
    """Kind 34: a person decides, by a reason."""
    target = numbers(800, seed=1)
    begun = begin({"a": numbers(800), "twin": [3 * value + 1 for value in target], "y": target})
    assert "alone reaches r2" in begun.reasons("suspected")["twin"]
    assert begun.case.features.request == ("a", "twin")
    assert "# waive: {twin: {reason: WHY, by: NAME, until: YYYY-MM-DD}}" in begun.text


def test_identifiers_and_people_are_left_out(begin):
    """Kind 35: near-unique numbers, codes, people's names and the row numbers that pandas writes."""
    source = random.Random(3)
    begun = begin(
        {
            "Unnamed: 0": source.sample(range(400_000), 300),
            "customerID": [f"C{i:05d}" for i in source.sample(range(9999), 300)],
            "account": source.sample(range(10_000_000, 99_000_000), 300),
            "first_name": words(["Ada", "Bob", "Cleo"]),
            "contact": [f"u{i}@mail.org" for i in range(300)],
            "plant": words(["north", "south"]),
            "size": source.sample(range(50_000), 300),
            "same": ["x"] * 300,
            "y": numbers(seed=1),
        }
    )
    assert begun.source.key == ("customerID",)
    assert begun.reasons("left out") == {
        "Unnamed: 0": "the number of the row, as pandas writes it",
        "account": "identifier: 300 different whole numbers in 300 rows",
        "first_name": "personal data: people's names",
        "contact": "personal data: e-mail addresses",
        "same": "constant, x in every row",
    }
    assert begun.case.features.request == ("plant", "size")


def test_dates_as_text_are_parsed_and_used(begin):
    """Kind 36: the format stands in the case; the model gets ISO text."""
    days = pd.date_range("2024-01-01", periods=300).strftime("%d.%m.%Y")
    begun = begin({"day": days, "a": numbers(), "y": numbers(seed=1)}, time="day")
    assert begun.source.columns["day"].format == "%d.%m.%Y"
    assert begun.case.train.split.by == "time"
    assert begun.examples["day"].sort_values().iloc[-1] == "2024-10-26"
    with pytest.raises(InputError, match=r"--time a: .*columns with a time: day"):
        begin({"day": days, "a": numbers(), "y": numbers(seed=1)}, time="a")


def test_words_for_missing_values_are_declared(begin):
    """Kind 30: among numbers `?` is missing, in every column; the decision is stated."""
    income = ["?" if i % 30 == 0 else str(value) for i, value in enumerate(numbers())]
    begun = begin({"income": income, "y": numbers(seed=1)})
    assert begun.source.missing == ("", "?")
    assert begun.examples["income"].isna().sum() == 10
    assert "income: number; missing where it says '?' (10 rows)" in begun.text


def test_a_word_may_be_missing_in_one_column_alone(begin):
    """Kinds 4 and 30: NA among numbers is missing, and Namibia in another column."""
    income = ["NA" if i % 30 == 0 else str(value) for i, value in enumerate(numbers())]
    begun = begin({"income": income, "country": words(["NA", "ZA", "AT"]), "y": numbers(seed=1)})
    assert begun.source.missing == ("",)
    assert begun.examples["income"].isna().sum() == 10
    assert set(begun.examples["country"]) == {"NA", "ZA", "AT"}


def test_rare_classes_are_left_out_and_named(begin):
    """Kind 29: a class of three rows can be neither learned nor judged."""
    begun = begin({"a": numbers(), "y": ["odd"] * 3 + words(["x", "z"], 297)})
    assert "class odd has 3 rows" in begun.reasons("target")["y"]
    assert len(begun.examples) == 297


def test_the_metric_that_is_named_is_gated_and_watched(begin):
    target = [10 * value for value in numbers(seed=1)]
    begun = begin({"a": numbers(), "y": target}, metric="mae")
    (bound,) = begun.case.evaluate.bounds
    assert (bound.metric, begun.case.monitor.retrain.metric) == ("mae", "mae")
    assert bound.at_most is not None
    assert 5 < bound.at_most < 10, "below the mean distance from the mean"


def test_a_wide_table_has_no_expectation_a_column(begin):
    """Kind 42: they would take longer than training."""
    begun = begin({**{f"x{i}": numbers(200, seed=i) for i in range(80)}, "y": numbers(200, seed=99)})
    assert begun.source.expectations == ()
    assert "80 features are checked by their types" in begun.text


def test_free_text_is_a_feature(begin):
    """Kind 38: by its words, or by --text."""
    lines = [" ".join(words(["late", "broken", "fine", "good", "box"], 6, seed=i)) for i in range(300)]
    assert begin({"message": lines, "y": words(["a", "b"])}).plan.features[0].kind == "text"
    begun = begin({"tag": words(["a b", "c d"]), "y": words(["a", "b"], seed=1)}, text=("tag",))
    assert begun.plan.features[0].kind == "text"


def test_too_few_rows_with_a_target(begin):
    with pytest.raises(DataError, match="100 rows with a y of 300"):
        begin({"a": numbers(), "y": [value if i % 3 == 0 else None for i, value in enumerate(numbers(seed=1))]})
