"""Leaks: columns that tell the target alone or together, or that a suspiciously good model rests on alone.

Each is a failed criterion that a person may waive, with a reason, under evaluate.waive of the case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.evaluate.config import Waiver
from tasks.evaluate.results import Criterion
from tasks.evaluate.tabular.rows import EvaluationRows
from tasks.statistics.single_column import LEAK, find_parts, single_column_scores

if TYPE_CHECKING:
    import pandas as pd

NAME = "leak"
TOO_GOOD = 0.95  # AUC or r2 of a model that had better not rest on one column
IMPORTANCE = 0.98  # share of the permutation importance
PARTS_R2 = 0.999
WORDS = 3  # in a sentence, on average
TODO = "remove it, or waive it with a reason under evaluate.waive"


@dataclass(frozen=True)
class Suspect:
    """Columns that seem to hold the target, and why."""

    columns: tuple[str, ...]
    observed: float
    required: str
    why: str

    def criterion(self, waived: Mapping[str, Waiver]) -> Criterion:
        reasons = [str(waived[name]) for name in self.columns if name in waived]
        waiver = "; ".join(dict.fromkeys(reasons)) if len(reasons) == len(self.columns) else ""
        return Criterion(
            name=f"{NAME}: {' and '.join(self.columns)}",
            observed=self.observed,
            required=self.required,
            passed=bool(waiver),
            note=f"{self.why}; " + (f"waived: {waiver}" if waiver else TODO),
            waiver=waiver,
        )


def _is_prose(values: pd.Series) -> bool:
    """Whether a column holds sentences: a model of messages or reviews rightly rests on them alone."""
    texts = values.dropna()
    if texts.empty or not isinstance(texts.iloc[0], str):
        return False
    return texts.nunique() > len(texts) / 2 and texts.str.count(" ").mean() >= WORDS - 1


def leak_criteria(
    rows: EvaluationRows, overall: Mapping[str, float], importance: Mapping[str, float], waived: Mapping[str, Waiver]
) -> list[Criterion]:
    """One failed or waived criterion for each leak; without any, one that passes and names the strongest column.

    `overall` holds the candidate's metrics, `importance` each column's share, `waived` waivers by column.
    """
    import numpy as np
    import pandas as pd

    target, metric = rows.target, "r2" if rows.target.task == "regression" else "auc"
    names = [column.name for column in rows.columns]
    table = pd.concat([rows.training, rows.holdout], ignore_index=True)
    held = np.arange(len(table)) >= len(rows.training)
    scores = single_column_scores(table[names], table[target.column], held, target.task)
    suspects = [
        Suspect((name,), score.value, f"< {LEAK:g} {metric}", f"{name} alone gives {metric} {score.value:.4f}")
        for name, score in scores.items()
        if score.is_leak
    ]
    alone = {name for suspect in suspects for name in suspect.columns}
    numbers = [column.name for column in rows.columns if column.kind == "number" and column.name not in alone]
    if target.task == "regression" and len(numbers) > 1:
        parts = find_parts(table[numbers], table[target.column], held, PARTS_R2)
        if parts:
            why = f"their weighted {parts.form} gives r2 {parts.r2:.4f}"
            suspects.append(Suspect(parts.columns, parts.r2, f"< {PARTS_R2:g} r2", why))
    suspected = {name for suspect in suspects for name in suspect.columns}
    if len(names) > 1 and overall.get(metric, 0.0) >= TOO_GOOD:
        for name, share in importance.items():
            if share >= IMPORTANCE and name not in suspected and not _is_prose(table[name]):
                why = f"a model with {metric} {overall[metric]:.4f} rests on {name} alone"
                suspects.append(Suspect((name,), share, f"< {IMPORTANCE:g} of the importance", why))
    if suspects:
        return [suspect.criterion(waived) for suspect in suspects]
    best = max(scores, key=lambda name: scores[name].low, default="")
    note = "no column says anything"
    if best:
        note = f"the strongest is {best}: alone it gives {metric} {scores[best].value:.4f}; observed is its lower bound"
    return [
        Criterion(
            name=NAME,
            observed=scores[best].low if best else 0.0,
            required=f"< {LEAK:g} {metric} by one column",
            passed=True,
            note=note,
        )
    ]
