"""The scores of a hold-out, from which a verdict is computed; stored with it, so that it can be computed again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import Result
from tasks.core.errors import InputError
from tasks.evaluate.config import Evaluate
from tasks.evaluate.criteria import bound_criterion, champion_criterion, decide, slice_criterion
from tasks.evaluate.fairness import fairness
from tasks.evaluate.metrics import by_month, by_value
from tasks.evaluate.results import Criterion
from tasks.evaluate.tabular.baselines import baseline_criteria, baseline_metrics
from tasks.evaluate.verdicts import EVIDENCE, PAIRED, verdict_digest
from tasks.train.classes import Classes, encode_target, predictions_in
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SCORES = "scores.parquet"
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

    evaluate: Evaluate
    target: Target
    classes: Classes
    problem: str
    criteria: tuple[Criterion, ...]
    computed: int  # of these, the first ones, that follow from the scores alone


class Recomputed(Result):
    """A verdict computed again from the stored scores."""

    decision: str
    digest: str
    stored_digest: str
    recomputed: tuple[str, ...]  # criteria that were computed again
    taken: tuple[str, ...]  # criteria that rest on more than scores, as they were recorded
    different: tuple[str, ...]  # of those computed again
    criteria: tuple[Criterion, ...]

    @property
    def is_same(self) -> bool:
        return self.digest == self.stored_digest and not self.different


def without_timing(criterion: Criterion) -> Criterion:
    """A criterion as it is sealed: a measured time differs between equal runs, and is recorded elsewhere."""
    return criterion if criterion.repeatable else criterion.model_copy(update={"observed": None, "note": ""})


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
    criteria.append(champion_criterion(config.champion_gate, *scores.paired, scores.problem))
    criteria += baseline_criteria(config.champion_gate, *sides, scores.baselines, target.task)
    if config.fairness:
        metrics["fairness"], found = fairness(config.fairness, scores.table, *sides)
        criteria += found
    return [*criteria, *unanswered], metrics


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


def recompute(folder: Path, digest: str) -> Recomputed:
    """Compute the verdict in a folder again, from its scores; `digest` is that of the stored verdict.

    Raises: InputError when the folder has no scores to compute it from.
    """
    import pandas as pd

    try:
        stored = StoredScores.model_validate_json((folder / EVIDENCE).read_bytes())
        table, paired = pd.read_parquet(folder / SCORES), pd.read_parquet(folder / PAIRED)
    except (OSError, ValueError) as error:
        raise InputError(
            "This verdict can't be computed again: its scores were not stored.",
            where=str(folder),
            found=str(error).splitlines()[0],
            allowed=f"{EVIDENCE}, {PAIRED} and {SCORES}, which verdicts on tables have since this version",
            todo="Run the case again.",
        ) from error
    fresh, _ = score_criteria(stored.evaluate, stored.target, stored.classes, _scores_in(table, paired, stored))
    count = stored.computed
    before, rest = stored.criteria[:count], stored.criteria[count:]
    pairs = list(zip_longest(before, fresh))
    criteria = (*fresh, *rest)
    return Recomputed(
        decision=decide(criteria),
        digest=verdict_digest(criteria),
        stored_digest=digest,
        recomputed=tuple(each.name for each in fresh),
        taken=tuple(each.name for each in rest),
        different=tuple((new or old).name for old, new in pairs if old != new),
        criteria=criteria,
    )


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
