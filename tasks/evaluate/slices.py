"""Non-inferiority on every slice: no group of examples may lose what the others gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from tasks.evaluate.config import ChampionGate, SliceMargin
from tasks.evaluate.results import Criterion
from tasks.statistics.bootstrap import MIN_CLUSTERS, PairedDifference, paired_bootstrap

if TYPE_CHECKING:
    import numpy as np

TAIL = 10  # resamples beyond a bound, at least
NAMED = 6  # small slices that a note names


@dataclass(frozen=True)
class PairedLosses:
    """The losses of both sides on the same examples, and the cluster of each example."""

    challenger: np.ndarray
    champion: np.ndarray
    clusters: Sequence[Any] | None = None

    def of(self, rows: np.ndarray) -> PairedLosses:
        """Those of some rows."""
        import numpy as np

        chosen = None if self.clusters is None else np.asarray(self.clusters, object)[rows].tolist()
        return PairedLosses(self.challenger[rows], self.champion[rows], chosen)

    def compare(self, gate: ChampionGate, comparisons: int) -> PairedDifference:
        """The upper bound is that of the gate, the lower one is corrected for the number of comparisons."""
        found = paired_bootstrap(
            self.challenger,
            self.champion,
            confidence=gate.confidence,
            resamples=gate.resamples,
            clusters=self.clusters,
        )
        if comparisons == 1:
            return found
        tail = (1 - gate.confidence) / comparisons
        corrected = paired_bootstrap(
            self.challenger,
            self.champion,
            confidence=1 - tail,
            resamples=max(gate.resamples, ceil(TAIL / tail)),
            clusters=self.clusters,
        )
        return replace(found, low=corrected.low)


def slice_criteria(gate: ChampionGate, slices: Mapping[str, Sequence[Any]], losses: PairedLosses) -> list[Criterion]:
    """A criterion for each column of `slices`, which holds the value of each example; none without gate.slices.

    Passed: every slice is shown to be not worse. That all must pass needs no correction. Failed: one is shown to be
    worse, by a bound with Bonferroni's correction for how many slices there are in all columns. Else: undecided.
    """
    if gate.slices is None:
        return []
    members = {column: _members(values) for column, values in slices.items()}
    large = {
        column: {value: rows for value, rows in found.items() if _is_large(losses.of(rows), gate.slices)}
        for column, found in members.items()
    }
    count = sum(len(found) for found in large.values())
    return [
        _criterion(
            gate,
            column,
            {value: losses.of(rows).compare(gate, count) for value, rows in large[column].items()},
            [value for value in members[column] if value not in large[column]],
        )
        for column in slices
    ]


def _criterion(
    gate: ChampionGate, column: str, found: Mapping[str, PairedDifference], small: Sequence[str]
) -> Criterion:
    assert gate.slices
    margin, name = gate.slices.margin, f"champion_{gate.loss}_by_{column}"
    required = f"<= {margin:g} worse than the champion on every slice"
    if not found:
        note = f"no slice has {gate.slices.min_rows} rows"
        return Criterion(name=name, observed=None, required=required, passed=False, note=note)
    worst = max(found, key=lambda value: (found[value].is_worse(margin), found[value].high))
    outcome = found[worst].outcome(margin)
    note = f"worst of {len(found)}: {worst}, {found[worst].explain(margin)}"
    if small:
        more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
        note += f"; under {gate.slices.min_rows} rows, so not compared: {', '.join(small[:NAMED])}{more}"
    return Criterion(
        name=name,
        observed=found[worst].high,
        required=required,
        passed=outcome == "not worse",
        note=note,
        conclusive=outcome != "not shown",
    )


def _members(values: Sequence[Any]) -> dict[str, np.ndarray]:
    """The rows of each value, sorted; a missing value is the slice `missing`."""
    import numpy as np
    import pandas as pd

    column = pd.Series(values)
    texts = column.astype(object).where(column.notna(), "missing").astype(str).to_numpy()
    return {str(value): np.flatnonzero(texts == value) for value in sorted(set(texts))}


def _is_large(losses: PairedLosses, gate: SliceMargin) -> bool:
    enough = losses.clusters is None or len(set(losses.clusters)) >= MIN_CLUSTERS
    return len(losses.challenger) >= gate.min_rows and enough
