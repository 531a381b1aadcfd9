"""The scores of a hold-out, from which a verdict is computed; stored with it, so that it can be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.config import Result
from tasks.evaluate.config import DAY, Evaluate
from tasks.evaluate.criteria import bound_criterion, losses_criterion, slice_criterion
from tasks.evaluate.fairness import fairness
from tasks.evaluate.metrics import by_month, by_value
from tasks.evaluate.results import Criterion
from tasks.evaluate.slices import PairedLosses, slice_criteria
from tasks.evaluate.tabular.baselines import baseline_criteria, baseline_metrics
from tasks.evaluate.verdicts import PAIRED, SCORES
from tasks.evaluate.waivers import waive_gates
from tasks.train.classes import Classes, encode_target, predictions_in
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics, losses

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TARGET, CANDIDATE, CHAMPION = "target", "candidate", "champion"  # columns of the paired scores


@dataclass(frozen=True)
class Scores:
    """What the gates compare: each example's target, and the predictions of each side for it."""

    table: pd.DataFrame  # the hold-out with the candidate's predictions
    paired: tuple[np.ndarray, np.ndarray, np.ndarray | None]  # target, candidate, champion, over the classes of both
    problem: str  # why the champion's predictions are missing
    baselines: dict[str, np.ndarray]


class StoredScores(Result):
    """What else a verdict was computed from, beside the scores."""

    kind: Literal["tabular"] = "tabular"
    evaluate: Evaluate
    target: Target
    classes: Classes
    problem: str
    criteria: tuple[Criterion, ...]
    computed: int  # of these, the first ones, that follow from the scores alone


def score_criteria(
    config: Evaluate, target: Target, classes: Classes, scores: Scores
) -> tuple[list[Criterion], dict[str, Any]]:
    """The criteria that follow from the scores alone, and the metrics; rows without an answer count in no other."""
    unanswered, scores = _answered(scores, classes)
    metrics = tables_of(scores.table, target, classes, config.slices)
    sides = encode_target(scores.table[target.column], classes), predictions_in(scores.table, classes)
    metrics["baselines"] = baseline_metrics(config.champion_gate, *sides, scores.baselines, target.task)
    criteria = [bound_criterion(bound, metrics["overall"]) for bound in config.bounds]
    if config.slice_gate:
        slices = metrics["by_slice"]
        criteria += [slice_criterion(config.slice_gate, c, metrics["overall"], slices.get(c)) for c in config.slices]
    criteria += _champion(config, scores)
    criteria += baseline_criteria(config.champion_gate, *sides, scores.baselines, target.task)
    if config.fairness:
        metrics["fairness"], found = fairness(config.fairness, scores.table, *sides)
        criteria += found
    return [*waive_gates(criteria, config.waive), *unanswered], metrics


def _champion(config: Evaluate, scores: Scores) -> list[Criterion]:
    """The comparison with the champion, over all rows and on every slice."""
    gate, table, (y, candidate, champion) = config.champion_gate, scores.table, scores.paired
    mine = losses(gate.loss, y, candidate)
    other = None if champion is None else losses(gate.loss, y, champion)
    clusters = None
    if gate.clusters:
        clusters = [
            str(value) for value in (table["event_timestamp"].dt.date if gate.clusters == DAY else table[gate.clusters])
        ]
    criteria = [losses_criterion(gate, mine, other, scores.problem, clusters)]
    if other is not None:
        values = {column: table[column].tolist() for column in config.slices if column in table}
        criteria += slice_criteria(gate, values, PairedLosses(mine, other, clusters))
    return criteria


def _answered(scores: Scores, classes: Classes) -> tuple[list[Criterion], Scores]:
    """A failed criterion when a row has no finite answer, and the scores of the other rows."""
    import numpy as np

    finite = np.isfinite(predictions_in(scores.table, classes))
    answered = finite if finite.ndim == 1 else finite.all(axis=1)
    if answered.all():
        return [], scores
    share = float(1 - answered.mean())
    note = f"{(~answered).sum():,} of {len(answered):,} rows got no number"
    failed = Criterion(name="unanswered", observed=share, required="<= 0 of the rows", passed=False, note=note)
    target, candidate, champion = scores.paired
    paired = target[answered], candidate[answered], None if champion is None else champion[answered]
    baselines = {name: side[answered] for name, side in scores.baselines.items()}
    return [failed], Scores(scores.table[answered], paired, scores.problem, baselines)


def tables_of(scored: pd.DataFrame, target: Target, classes: Classes, slices: tuple[str, ...]) -> dict[str, Any]:
    """Metrics overall, by month and by slice; each with its number of rows."""
    y, p = encode_target(scored[target.column], classes), predictions_in(scored, classes)
    return {
        "overall": {"rows": len(scored), **compute_metrics(y, p, target.task)},
        "by_month": by_month(scored["event_timestamp"], y, p, target.task),
        "by_slice": {c: by_value(scored[c], y, p, target.task) for c in slices if c in scored},
    }


def paired_table(scores: Scores) -> pd.DataFrame:
    """The paired scores as a table: target, then each side's predictions, one column a class."""
    import pandas as pd

    target, candidate, champion = scores.paired
    sides = {CANDIDATE: candidate, **({} if champion is None else {CHAMPION: champion}), **scores.baselines}
    columns = {f"{name} {k}": each for name, side in sides.items() for k, each in enumerate(_parts(side))}
    return pd.DataFrame({TARGET: target, **columns})


def recompute_criteria(folder: Path, evidence: Mapping[str, Any]) -> tuple[StoredScores, list[Criterion]]:
    """What a verdict in this folder was stored with, and the criteria that follow from its scores.

    Raises: OSError, ValueError when the scores can't be read.
    """
    import pandas as pd

    # waivers before this version are texts; they concern leaks alone, which are taken as recorded
    evaluate = evidence["evaluate"]
    waive = {name: each for name, each in evaluate["waive"].items() if isinstance(each, dict)}
    stored = StoredScores.model_validate({**evidence, "evaluate": {**evaluate, "waive": waive}})
    table, paired = pd.read_parquet(folder / SCORES), pd.read_parquet(folder / PAIRED)
    criteria, _ = score_criteria(stored.evaluate, stored.target, stored.classes, _scores_in(table, paired, stored))
    return stored, criteria


def _scores_in(table: pd.DataFrame, paired: pd.DataFrame, stored: StoredScores) -> Scores:
    names = list(dict.fromkeys(name.rpartition(" ")[0] for name in map(str, paired) if name != TARGET))
    sides = {}
    for name in names:
        side = paired[[column for column in map(str, paired) if column.rpartition(" ")[0] == name]].to_numpy()
        sides[name] = side if side.shape[1] > 1 else side[:, 0]
    both = sides.pop(CANDIDATE), sides.pop(CHAMPION, None)
    return Scores(table, (paired[TARGET].to_numpy(), *both), stored.problem, sides)


def _parts(side: np.ndarray) -> list[np.ndarray]:
    return [side] if side.ndim == 1 else list(side.T)
