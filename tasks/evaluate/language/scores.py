"""The scored answers of an evaluation, from which its verdict is computed; stored, so that it can be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.config import Result
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.criteria import bound_criterion, losses_criterion, paired_criterion, slice_criterion
from tasks.evaluate.language.first_questions import first_verdict
from tasks.evaluate.language.metrics import answer_losses, clusters_of, measure, slices_of
from tasks.evaluate.results import Criterion
from tasks.evaluate.slices import PairedLosses, slice_criteria
from tasks.evaluate.verdicts import SCORES
from tasks.evaluate.waivers import waive_gates
from tasks.language.answer_scoring import METRICS
from tasks.statistics.metric_catalog import metrics_of

if TYPE_CHECKING:
    import pandas as pd

TIMINGS = ("latency_p50_ms", "cost_per_1k_answers")
JUDGE_SCORE = "judge_score"  # the metric and the criterion that need the judge
BESIDE = (*TIMINGS, "perplexity", JUDGE_SCORE)  # metrics that do not follow from the scored answers
CHAMPION, UNQUANTIZED, CONSTRAINED = "champion", "unquantized", "constrained"  # variants beside the served one


class Problems(Result):
    """Why answers are missing that a criterion compares with; empty where they exist, or need not."""

    champion: str = ""
    unquantized: str = ""


class StoredAnswers(Result):
    """What else a verdict was computed from, beside the scored answers."""

    kind: Literal["llm"] = "llm"
    evaluate: LanguageEvaluation
    tuned: str = ""  # variant whose weights were quantized; empty: none
    first_only: bool = False  # only the first questions were answered
    problems: Problems = Problems()
    criteria: tuple[Criterion, ...] = ()
    computed: int = 0  # of these, the first ones, that follow from the scored answers alone


def variants_of(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The answers of each model, in their order."""
    names = scores["variant"].unique()
    return {str(name): scores[scores["variant"] == name].reset_index(drop=True) for name in names}


def score_criteria(stored: StoredAnswers, scores: pd.DataFrame) -> list[Criterion]:
    """The criteria that follow from the scored answers alone."""
    config, variants = stored.evaluate, variants_of(scores)
    served = variants["served"]
    overall = measure(served)
    criteria = [bound_criterion(bound, overall) for bound in config.bounds if bound.metric not in BESIDE]
    champion = variants.get(CHAMPION)
    if stored.first_only and champion is not None:
        criteria.append(first_verdict(config.champion_gate, served, champion))
    if gate := config.slice_gate:
        slices = {column: slices_of(served, column) for column in config.slices if column in served}
        criteria += [slice_criterion(gate, column, overall, slices.get(column)) for column in config.slices]
    criteria += _champion(config, served, champion, stored.problems.champion)
    criteria += _unjudged(served)
    if config.above_few_shot is not None:
        criteria.append(few_shot_criterion(config.above_few_shot, served, variants["few_shot"]))
    if CONSTRAINED in variants:
        criteria.append(constrained_criterion(measure(variants[CONSTRAINED])))
    if stored.tuned:
        before = variants.get(UNQUANTIZED)
        criteria.append(
            quantized_criterion(config.quantized_loss, variants[stored.tuned], before, stored.problems.unquantized)
        )
    return waive_gates(criteria, config.waive)


def recompute_criteria(folder: Path, evidence: Mapping[str, Any]) -> tuple[StoredAnswers, list[Criterion]]:
    """What a verdict in this folder was stored with, and the criteria that follow from its scored answers.

    Raises: OSError, ValueError when the answers can't be read.
    """
    import pandas as pd

    stored = StoredAnswers.model_validate(evidence)
    return stored, score_criteria(stored, pd.read_parquet(folder / SCORES))


def _champion(
    config: LanguageEvaluation, served: pd.DataFrame, champion: pd.DataFrame | None, problem: str
) -> list[Criterion]:
    """The comparison with the champion, over all answers and on every slice."""
    gate, ordinary = config.champion_gate, _ordinary(served)
    mine, clusters = answer_losses(ordinary, gate.loss), clusters_of(ordinary, gate.clusters)
    other = None if champion is None else answer_losses(champion, gate.loss)
    criteria = [losses_criterion(gate, mine, other, problem, clusters)]
    if other is not None:
        values = {column: ordinary[column].tolist() for column in config.slices if column in ordinary}
        criteria += slice_criteria(gate, values, PairedLosses(mine, other, clusters))
    return criteria


def _unjudged(served: pd.DataFrame) -> list[Criterion]:
    """A warning when no right answer or fact is known, which names what is not judged."""
    ordinary = _ordinary(served)
    measured = measure(ordinary)
    missing = [metric.name for metric in METRICS if metric.judges and metric.name not in measured]
    if ordinary["has_reference"].astype(bool).any() or "required_facts_recall" in measured:
        return []
    form = "json" if ordinary["json_valid"].notna().any() else "text"
    forms = (None, form, "passages" if "confidence" in served else form)
    shown = {metric.name for metric in METRICS if metric.format in forms} & {*metrics_of("answers")}
    names = [name for name in missing if name in shown]
    note = f"whether answers are right is unknown; not judged: {', '.join(names)}"
    return [Criterion(name="known_answers", observed=0.0, required=">= 1", passed=False, note=note, blocking=False)]


def few_shot_criterion(at_least: float, served: pd.DataFrame, few_shot: pd.DataFrame) -> Criterion:
    """How far exact match lies above the base's; in the base's favour, JSON within prose counts as exact."""
    served, few_shot = _same_pairs(served, few_shot)
    return paired_criterion(
        "exact_match_above_few_shot",
        served["exact"].to_numpy(float) - few_shot["exact_anywhere"].to_numpy(float),
        clusters_of(served),
        at_least=at_least,
    )


def quantized_criterion(
    at_most: float, served: pd.DataFrame, unquantized: pd.DataFrame | None, problem: str
) -> Criterion:
    """What quantization costs in exact match."""
    name = "quantized_loss"
    if unquantized is None:
        return Criterion(name=name, observed=None, required=f"<= {at_most:g}", passed=False, note=problem)
    served, before = _same_pairs(served, unquantized)
    lost = before["exact"].to_numpy(float) - served["exact"].to_numpy(float)
    return paired_criterion(name, lost, clusters_of(served), at_most=at_most)


def constrained_criterion(metrics: dict[str, float]) -> Criterion:
    observed = metrics["schema_validity"]
    note = f"{metrics['n']} answers that the schema constrains"
    return Criterion(
        name="constrained_schema_validity", observed=observed, required=">= 1", passed=observed >= 1, note=note
    )


def _ordinary(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["unsafe"].astype(bool)]


def _same_pairs(table: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ordinary rows of both tables for the pairs of `other`, in the same order."""
    table, other = (_ordinary(each).set_index("pair_id", drop=False) for each in (table, other))
    return table.loc[other.index], other
