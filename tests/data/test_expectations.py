"""Expectations: invalid ones are refused early; on DuckDB they give the results of Great Expectations on pandas."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from tasks.core.errors import CaseError
from tasks.data.config import Expectation, Source
from tasks.data.tabular.checks import Check, build
from tasks.data.tabular.expectations import check_expectations, expectation_schemas
from tasks.data.tabular.gx_runner import GxRunner

WORDS = "CASE WHEN i % 3 = 0 THEN NULL ELSE 'v' || (i % 5) END"
ROWS = (
    f"SELECT i AS row, i AS a, (i + 1) % 90 AS b, i / 3.0 AS x, {WORDS} AS word, "
    "TIMESTAMP '2013-01-01' + to_minutes(i::INTEGER) AS at FROM range(100) r(i)"
)
BOTH: list[dict[str, Any]] = [  # on either engine, with what is not met
    {"expect": "column_values_to_not_be_null", "column": "word"},
    {"expect": "column_values_to_be_null", "column": "word", "mostly": 0.2},
    {"expect": "column_values_to_be_between", "column": "a", "min_value": 3, "strict_min": True},
    {"expect": "column_values_to_be_between", "column": "x", "min_value": 1, "max_value": 20, "mostly": 0.5},
    {"expect": "column_values_to_be_between", "column": "at", "min_value": datetime(2013, 1, 1, 0, 5)},
    {"expect": "column_values_to_be_in_set", "column": "word", "value_set": ["v1", "v2", "v4"]},
    {"expect": "column_values_to_not_be_in_set", "column": "a", "value_set": [1, 2]},
    {"expect": "column_values_to_match_regex", "column": "word", "regex": "[12]"},
    {"expect": "column_values_to_not_match_regex", "column": "word", "regex": "^v1"},
    {"expect": "column_values_to_match_regex_list", "column": "word", "regex_list": ["1$", "2$"]},
    {"expect": "column_value_lengths_to_equal", "column": "word", "value": 2},
    {"expect": "column_values_to_be_unique", "column": "b"},
    {"expect": "column_pair_values_a_to_be_greater_than_b", "column_A": "b", "column_B": "a"},
    {"expect": "column_pair_values_to_be_equal", "column_A": "a", "column_B": "b"},
    {"expect": "select_column_values_to_be_unique_within_record", "column_list": ["a", "b", "x"]},
    {"expect": "multicolumn_sum_to_equal", "column_list": ["a", "b"], "sum_total": 3},
    {"expect": "compound_columns_to_be_unique", "column_list": ["b", "a"]},
    {"expect": "column_mean_to_be_between", "column": "x", "max_value": 3},
    {"expect": "column_median_to_be_between", "column": "a", "max_value": 3},
    {"expect": "column_max_to_be_between", "column": "a", "max_value": 99},
    {"expect": "column_stdev_to_be_between", "column": "a", "max_value": 3},
    {"expect": "column_unique_value_count_to_be_between", "column": "word", "max_value": 3},
    {"expect": "column_proportion_of_unique_values_to_be_between", "column": "b", "min_value": 0.9},
    {"expect": "column_distinct_values_to_equal_set", "column": "word", "value_set": ["v1", "v2"]},
    {"expect": "table_row_count_to_equal", "value": 100},
]


def source(*expectations: dict) -> Source:
    return Source.model_validate({"uri": "file://x", "key": ["id"], "expectations": expectations})


def as_checks(expectations: list[dict]) -> list[Check]:
    stated = [Expectation.model_validate(each) for each in expectations]
    return [Check(number, e, build("trips", e)) for number, e in enumerate(stated)]


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        ({"expect": "column_values_to_be_betwen", "column": "a"}, "nearest: column_values_to_be_between"),
        ({"expect": "nonsense"}, "there are: column_distinct_values_to_be_in_set"),
        ({"expect": "column_values_to_be_between", "min_value": 1}, "argument column is missing"),
        (
            {"expect": "column_values_to_be_unique", "column": "a", "colum": 1},
            "argument colum; allowed: column",
        ),
        ({"expect": "column_values_to_be_unique", "column": ["a"]}, "column must be text, found ['a']"),
        ({"expect": "column_values_to_be_unique", "column": "a", "values_of": "x.y"}, "values_of is for types"),
        ({"expect": "column_values_to_be_in_set", "column": "a", "value_set": [1], "values_of": "x.y"}, "not both"),
    ],
)
def test_invalid_expectations_are_refused_without_data(expectation, message):
    with pytest.raises(CaseError) as error:
        check_expectations("trips", source({"expect": "column_values_to_not_be_null", "column": "a"}, expectation))
    assert error.value.found.startswith(f"expectations[1] {expectation['expect']}: ")
    assert message in error.value.found


def test_all_invalid_expectations_are_named_at_once():
    with pytest.raises(CaseError) as error:
        check_expectations("trips", source({"expect": "one"}, {"expect": "column_to_exist"}))
    assert "expectations[0] one" in error.value.found
    assert "expectations[1] column_to_exist: argument column is missing" in error.value.found


def test_checking_a_case_does_not_wait_for_great_expectations():
    """Its import takes seconds; `driftline validate` needs only its schemas."""
    code = (
        "import sys; from tasks.data.config import Source; "
        "from tasks.data.tabular.expectations import check_expectations; "
        "check_expectations('t', Source(uri='file://x', key=('a',), "
        "expectations=[{'expect': 'column_to_exist', 'column': 'a'}])); "
        "sys.exit('great_expectations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_duckdb_and_pandas_say_the_same():
    """Our dialect is no second opinion: success, counts and observed values equal those of the pandas engine."""
    import great_expectations as gx

    checks = as_checks(BOTH)
    with duckdb.connect() as db:
        db.execute(f"CREATE TABLE trips AS {ROWS}")
        outcomes = GxRunner(db, "trips", "now").run("trips", checks)
        frame = db.execute("FROM trips").df()
    frame["at"] = frame["at"].astype("datetime64[ns]")  # the only ones it compares
    context = gx.get_context(mode="ephemeral")
    variables: Any = context.variables
    variables.progress_bars = {"globally": False, "metric_calculations": False}
    batch = (
        context.data_sources.add_pandas("pandas").add_dataframe_asset("trips").add_batch_definition_whole_dataframe("x")
    )
    for check in checks:
        expected = batch.get_batch({"dataframe": frame}).validate(build("trips", check.stated), result_format="BASIC")
        actual = outcomes[check.number]
        assert actual.passed == bool(expected.success), check.label
        for name in ("element_count", "unexpected_count", "missing_count"):
            assert actual.result.get(name) == expected.result.get(name), (check.label, name)
        if isinstance(expected.result.get("observed_value"), (int, float)):
            assert actual.result["observed_value"] == pytest.approx(expected.result["observed_value"]), check.label
    assert 5 < sum(outcome.passed for outcome in outcomes.values()) < len(BOTH) - 5


def test_every_type_on_offer_can_be_computed():
    """What the check lets pass, the engine answers: no type is offered that crashes on DuckDB."""
    more: list[dict[str, Any]] = [
        {"expect": "column_distinct_values_to_be_in_set", "column": "word", "value_set": ["v1"]},
        {"expect": "column_distinct_values_to_contain_set", "column": "word", "value_set": ["v1"]},
        {"expect": "column_kl_divergence_to_be_less_than", "column": "word", "threshold": 0.5,
         "partition_object": {"values": ["v0", "v1", "v2", "v3", "v4"], "weights": [0.2] * 5}},
        {"expect": "column_min_to_be_between", "column": "at", "min_value": "2013-01-02"},
        {"expect": "column_most_common_value_to_be_in_set", "column": "word", "value_set": ["v1"]},
        {"expect": "column_pair_values_to_be_in_set", "column_A": "a", "column_B": "b", "value_pairs_set": [[0, 1]]},
        {"expect": "column_proportion_of_non_null_values_to_be_between", "column": "word", "min_value": 0.9},
        {"expect": "column_sum_to_be_between", "column": "a", "max_value": 3},
        {"expect": "column_to_exist", "column": "a"},
        {"expect": "column_type_to_be", "column": "at", "type_": "timestamp"},
        {"expect": "column_values_to_be_of_type", "column": "a", "type_": "BIGINT"},
        {"expect": "column_values_to_be_in_type_list", "column": "a", "type_list": ["INTEGER", "BIGINT"]},
        {"expect": "column_value_lengths_to_be_between", "column": "word", "max_value": 2},
        {"expect": "column_value_z_scores_to_be_less_than", "column": "a", "threshold": 1, "double_sided": True},
        {"expect": "column_values_to_match_like_pattern", "column": "word", "like_pattern": "v1%"},
        {"expect": "column_values_to_match_like_pattern_list", "column": "word", "like_pattern_list": ["v1%"]},
        {"expect": "column_values_to_not_match_like_pattern", "column": "word", "like_pattern": "v1%"},
        {"expect": "column_values_to_not_match_like_pattern_list", "column": "word", "like_pattern_list": ["v1%"]},
        {"expect": "column_values_to_not_match_regex_list", "column": "word", "regex_list": ["1$"]},
        {"expect": "column_values_to_not_be_outliers", "column": "a", "method": "iqr", "multiplier": 0.1},
        {"expect": "column_value_lengths_to_equal", "column": "word", "value": 1,
         "row_condition": {"type": "comparison", "column": {"name": "a"}, "operator": "<", "parameter": 50}},
        {"expect": "multicolumn_values_to_be_equal", "column_list": ["a", "b"]},
        {"expect": "table_column_count_to_be_between", "max_value": 3},
        {"expect": "table_column_count_to_equal", "value": 6},
        {"expect": "table_columns_to_match_ordered_list", "column_list": ["a", "b"]},
        {"expect": "table_columns_to_match_set", "column_set": ["a", "b"]},
        {"expect": "table_row_count_to_be_between", "max_value": 3},
        {"expect": "unexpected_rows_expectation", "unexpected_rows_query": "SELECT * FROM {batch} WHERE a > 97"},
    ]  # fmt: skip
    check_expectations("trips", source(*more, *BOTH))
    assert {name.removeprefix("expect_") for name in expectation_schemas()} == {e["expect"] for e in [*BOTH, *more]}
    checks = as_checks(more)
    with duckdb.connect() as db:
        db.execute(f"CREATE TABLE trips AS {ROWS}")
        outcomes = GxRunner(db, "trips", f"{datetime(2013, 1, 1, tzinfo=UTC):%Y}").run("trips", checks)
    assert len(outcomes) == len(more)
    assert outcomes[len(more) - 1].result["observed_value"] == 2
    assert {check.stated.expect: outcomes[check.number].passed for check in checks}["column_values_to_be_of_type"]
