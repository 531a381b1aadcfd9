"""Promise: a verdict on answers follows from the stored answers, bit for bit, and each of its comparisons can fail."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.language.scores import (
    Problems,
    StoredAnswers,
    constrained_criterion,
    few_shot_criterion,
    quantized_criterion,
    score_criteria,
)
from tasks.evaluate.recompute import recompute
from tasks.evaluate.results import Criterion
from tasks.evaluate.verdicts import EVIDENCE, verdict_digest
from tasks.language.answer_scoring import Score


def answered(right: list[bool], variant: str = "served", templates: int = 10) -> pd.DataFrame:
    """A table of scored answers, some right, some wrong."""
    rows = [
        {
            "pair_id": f"p{i}",
            "intent": "ab"[i % 2],
            "template": f"t{i % templates}",
            "unsafe": False,
            "variant": variant,
            **Score(True, True, ok, ok, ok, 1, 1, None, False, False, 0.0, False).__dict__,
        }
        for i, ok in enumerate(right)
    ]
    return pd.DataFrame(rows)


def test_a_verdict_on_answers_follows_from_them(tmp_path: Path) -> None:
    """Also beside a champion, whose answers are stored; a changed answer is found, with the criteria that differ."""
    better, worse = [True] * 36 + [False] * 4, [True] * 20 + [False] * 20
    scores = pd.concat([answered(better), answered(worse, "champion")], ignore_index=True)
    gates = {
        "bounds": [{"metric": "exact_match", "at_least": 0.5}, {"metric": "latency_p50_ms", "at_most": 1e9}],
        "champion_gate": {"loss": "inexact", "min_rows": 30},
        "slice_gate": {"metric": "exact_match", "at_most_worse": 0.5, "min_rows": 10},
    }
    stored = StoredAnswers(evaluate=LanguageEvaluation.model_validate(gates), problems=Problems())
    criteria = score_criteria(stored, scores)
    assert [each.name for each in criteria] == ["exact_match", "exact_match_by_intent", "champion_inexact"]
    late = Criterion(name="latency_p50_ms", observed=None, required="<= 1e+09", passed=True, repeatable=False)
    whole = stored.model_copy(update={"criteria": (*criteria, late), "computed": len(criteria)})
    (tmp_path / EVIDENCE).write_text(whole.model_dump_json())
    scores.to_parquet(tmp_path / "scores.parquet", index=False)
    found = recompute(tmp_path, verdict_digest(whole.criteria))
    assert found.is_same
    assert found.taken == ("latency_p50_ms",)
    scores.loc[0, "exact"] = False
    scores.to_parquet(tmp_path / "scores.parquet", index=False)
    found = recompute(tmp_path, verdict_digest(whole.criteria))
    assert not found.is_same
    assert found.different == ("exact_match", "exact_match_by_intent", "champion_inexact")


def test_each_comparison_can_fail() -> None:
    """Not enough above the base; too much lost by rounding; an invalid answer under constraint; each by one answer."""
    half, more = answered([True, False] * 20), answered([True] * 21 + [False] * 19)
    assert few_shot_criterion(0.5, half, answered([False] * 40, "few_shot")).passed
    assert not few_shot_criterion(0.51, half, answered([False] * 40, "few_shot")).passed
    found = quantized_criterion(0.01, answered([False] + [True] * 39), answered([True] * 40), "")
    assert (found.observed, found.passed) == (0.025, False)
    assert quantized_criterion(0.025, answered([False] + [True] * 39), answered([True] * 40), "").passed
    assert quantized_criterion(0.0, more, more, "").passed
    assert not constrained_criterion({"schema_validity": 0.99, "n": 100}).passed
    part = answered([True] * 40).iloc[10:20]
    assert few_shot_criterion(1.0, answered([False] * 10 + [True] * 30), part.assign(exact_anywhere=False)).passed
