"""How often the gate against the champion errs: false promotions of candidates that are just too bad, and power.

    python -m benchmarks.verdicts [--quick] [--json FILE] [--runs 1000]

Each line is a kind of data. A null run draws examples whose true mean difference lies on the margin, so that every
promotion is false; the interval of their share is exact (Clopper-Pearson). Needs no state and no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.table import Report, arguments
from tasks.evaluate.config import ChampionGate, SliceMargin
from tasks.evaluate.criteria import losses_criterion
from tasks.evaluate.slices import PairedLosses, slice_criteria
from tasks.statistics.sample_size import paired_sample_size
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np

ALPHA = 0.05
POWER = 0.8
EFFECT = 0.25  # of the power runs, in standard deviations
RUNS = 1000
GATE = ChampionGate(loss="brier", min_rows=30, resamples=400)
SLICES = 4
Draw = Callable[["np.random.Generator"], "np.ndarray"]


@dataclass(frozen=True)
class Data:
    """A kind of data: differences of losses, of which the mean is the margin."""

    name: str
    draw: Draw
    margin: float = 0.0
    cluster: int = 0  # examples of one cluster; 0: independent

    def promotes(self, seed: int) -> bool:
        """Whether the gate promotes in one null run."""
        import numpy as np

        differences = self.draw(np.random.default_rng(seed))
        clusters = (np.arange(len(differences)) // self.cluster).tolist() if self.cluster else None
        gate = GATE.model_copy(update={"margin": self.margin})
        return losses_criterion(gate, differences, np.zeros(len(differences)), clusters=clusters).passed


@dataclass(frozen=True)
class Share:
    """How many of some runs promoted, with the exact 95 % interval of the share."""

    promoted: int
    runs: int

    @property
    def interval(self) -> tuple[float, float]:
        """Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits (1934)."""
        from scipy.stats import binomtest

        found = binomtest(self.promoted, self.runs).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def kinds() -> list[Data]:
    """Small, skewed and tied samples among them."""
    return [
        Data("30 examples, normal", lambda random: random.normal(0, 1, 30)),
        Data("50 examples, a few much worse", lambda random: random.exponential(1, 50) - 1),
        Data("50 examples, a few much better", lambda random: 1 - random.exponential(1, 50)),
        Data("500 probabilities, a fifth positive", lambda random: _probabilities(random, 0.2)),
        Data("500 probabilities, 1 in 100 positive", lambda random: _probabilities(random, 0.01)),
        Data("300 right or wrong answers, 4 % differ", lambda random: random.choice([-1.0, 0, 1], 300, p=TIES)),
        Data("500 answers, 1 in 100 lost, none won", lambda random: random.binomial(1, 0.01, 500) * 1.0, margin=0.01),
        Data("12 days of 20 examples", _days, cluster=20),
    ]


# a known limit, with its own line: a hundred examples seldom have one of the few that decide the mean
LIMIT = Data("100 examples, lognormal", lambda random: random.lognormal(0, 1.5, 100) - math.exp(1.125))
TIES = [0.02, 0.96, 0.02]


def _probabilities(random: np.random.Generator, rate: float) -> np.ndarray:
    """Two models that err alike around the true rate of each example."""
    import numpy as np

    true = random.beta(2, 2 / rate - 2, 500)
    outcome = (random.random(500) < true).astype(float)
    sides = [(true + random.normal(0, rate / 4, 500)).clip(0, 1) for _ in range(2)]
    mine, other = (losses("brier", outcome, side) for side in sides)
    return np.asarray(mine - other)


def _days(random: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.repeat(random.normal(0, 1, 12), 20) + random.normal(0, 1, 240)


def slice_promotes(seed: int) -> bool:
    """One of four slices is worse by the margin, the others are better: each promotion is false."""
    import numpy as np

    random, rows = np.random.default_rng(seed), 100
    means = np.repeat([0.1, -0.5, -0.5, -0.5], rows)
    differences = means + random.normal(0, 1, SLICES * rows)
    gate = GATE.model_copy(update={"slices": SliceMargin(margin=0.1, min_rows=30)})
    values = {"part": np.repeat(np.arange(SLICES), rows).tolist()}
    return all(each.passed for each in slice_criteria(gate, values, PairedLosses(differences, np.zeros(SLICES * rows))))


def slice_rejects(seed: int) -> bool:
    """All of four slices are as bad as they may be: each rejection is false, and the correction bounds their share."""
    import numpy as np

    random, rows = np.random.default_rng(seed), 100
    differences = 0.1 + random.normal(0, 1, SLICES * rows)
    gate = GATE.model_copy(update={"slices": SliceMargin(margin=0.1, min_rows=30)})
    values = {"part": np.repeat(np.arange(SLICES), rows).tolist()}
    found = slice_criteria(gate, values, PairedLosses(differences, np.zeros(SLICES * rows)))
    return any(not each.passed and each.conclusive for each in found)


def has_power(seed: int) -> bool:
    """With the number of examples that the platform names for this effect."""
    import numpy as np

    rows = paired_sample_size(EFFECT, 1.0, confidence=GATE.confidence, power=POWER)
    differences = np.random.default_rng(seed).normal(-EFFECT, 1, rows)
    return losses_criterion(GATE.model_copy(update={"resamples": 1000}), differences, np.zeros(rows)).passed


def share_of(run: Callable[[int], bool], runs: int) -> Share:
    """Runs with the seeds 0, 1, ..."""
    return Share(sum(run(seed) for seed in range(runs)), runs)


def main() -> None:
    options = arguments(__doc__.splitlines()[0], runs=f"runs of each kind; default: {RUNS}, quick: 100")
    runs = int(options.runs or (100 if options.quick else RUNS))
    required = {"worst_false_promotions": f"an exact interval that reaches down to {ALPHA:g}", "power": f"{POWER:g}"}
    report = Report("Verdicts", ["examples", "error", "share", "exact 95 % interval"], required)
    worst = 0.0
    for data in kinds():
        worst = max(worst, _row(report, data.name, "false promotion", share_of(data.promotes, runs)))
    worst = max(worst, _row(report, "4 slices of 100, one too bad", "false promotion", share_of(slice_promotes, runs)))
    _row(report, "4 slices of 100, all just good enough", "false rejection", share_of(slice_rejects, runs))
    report.figure("worst_false_promotions", worst)
    report.figure("lognormal", _row(report, LIMIT.name, "false promotion", share_of(LIMIT.promotes, runs)))
    report.figure(
        "power", _row(report, f"better by {EFFECT:g} standard deviations", "promotion", share_of(has_power, runs))
    )
    report.finish(["numpy", "scipy"], options.json)


def _row(report: Report, name: str, what: str, share: Share) -> float:
    low, high = share.interval
    report.row(name, what, f"{share.promoted / share.runs:.3f}", f"{low:.3f} to {high:.3f}")
    return share.promoted / share.runs


if __name__ == "__main__":
    main()
