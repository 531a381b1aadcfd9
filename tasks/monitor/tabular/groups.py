"""Fairness over time: the rates of each group of people in a window, and what the case's fairness gates say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.evaluate.config import Fairness
from tasks.evaluate.fairness import SMALL_GROUPS, fairness
from tasks.evaluate.results import Criterion
from tasks.monitor.results import Disparity
from tasks.monitor.tabular.labels_and_predictions import labels_and_predictions
from tasks.monitor.tabular.outcomes import ScoredWithOutcomes
from tasks.train.classes import Classes

if TYPE_CHECKING:
    import pandas as pd


def measure_groups(
    config: Fairness, known: pd.DataFrame, scored: ScoredWithOutcomes, classes: Classes
) -> tuple[dict[str, Any], list[str]]:
    """Fields of a signal, and a sentence for what is not known of groups.

    `known` are the rows with an outcome. A sensitive column that the model does not take is read from the examples.
    """
    table, missing = _sensitive(config, known, scored)
    if missing:
        return {}, [f"Groups were not compared: the rows have no column {', '.join(missing)}."]
    tables, criteria = fairness(config, table, *labels_and_predictions(known, "outcome", classes))
    gates = [each for each in criteria if each.name != SMALL_GROUPS]
    notes = [f"Of groups: {each.note}." for each in criteria if each.name == SMALL_GROUPS]
    return {"groups": tables, "disparities": tuple(_disparity(each) for each in gates)}, notes


def _disparity(criterion: Criterion) -> Disparity:
    if criterion.passed:
        return Disparity(name=criterion.name, required=criterion.required, outcome="within", note=criterion.note)
    outcome = "beyond" if criterion.observed is not None and criterion.conclusive else "not shown"
    return Disparity(name=criterion.name, required=criterion.required, outcome=outcome, note=criterion.note)


def _sensitive(config: Fairness, known: pd.DataFrame, scored: ScoredWithOutcomes) -> tuple[pd.DataFrame, list[str]]:
    """The sensitive columns of these rows, and the names of those that are nowhere."""
    import pyarrow.parquet as pq

    absent = [name for name in config.columns if name not in known]
    if not absent or scored.examples is None:
        return known, absent
    stored = [name for name in absent if name in pq.read_schema(scored.examples).names]
    if not stored:
        return known, absent
    examples = pq.read_table(scored.examples, columns=["example_id", *stored]).to_pandas()
    joined = known[["example_id"]].merge(examples.drop_duplicates("example_id"), on="example_id", how="left")
    table = known.assign(**{name: joined[name].to_numpy() for name in stored})
    return table, [name for name in absent if name not in stored]
