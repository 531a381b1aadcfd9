"""How often monitoring calls something a change when nothing has changed, at any number of rows.

Run: python -m benchmarks.alarms [--windows N] [--rows 1000 1000000] [--sample 5000]
Each window is a new reference and new rows of one world, judged as `monitor` judges them: every column, the
predictions, the watched metric and the bias. Evidently's distances are left out: a change must also be large enough to
matter, so that the alarms of a case are fewer than what is counted here.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from tasks.features.results import Column
from tasks.monitor.chance import adjusted
from tasks.monitor.drift import compare_column, prepare
from tasks.monitor.performance_chance import performance_chances
from tasks.monitor.sides import side_of
from tasks.train.classes import PLAIN

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HELD = 5000  # rows of a hold-out
COLUMNS = {"steady": "number", "heavy": "number", "gaps": "number", "town": "text"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--sample", type=int, default=5000)
    asked = parser.parse_args()
    print(f"{'rows':>10} {'windows':>8} {'with an alarm at .05':>21} {'at .2':>6} {'s a window':>11}")
    for rows in asked.rows:
        begun = time.monotonic()
        least = lowest(rows, asked.windows, asked.sample)
        took = (time.monotonic() - begun) / asked.windows
        at = [sum(value <= rate for value in least) / len(least) for rate in (0.05, 0.2)]
        print(f"{rows:>10,} {asked.windows:>8} {at[0]:>21.3f} {at[1]:>6.3f} {took:>11.2f}")


def lowest(rows: int, windows: int, sample: int, seed: int = 0) -> list[float]:
    """The lowest adjusted p-value of each window: what it would raise an alarm at."""
    import numpy as np

    random = np.random.default_rng(seed)
    found = []
    for _ in range(windows):
        then, now = world(HELD, random), world(rows, random, columns_of=sample)
        sides = [side_of(side, "outcome", PLAIN) for side in (now, then)]
        chances = dict(performance_chances(sides[0], sides[1], PLAIN, "auc"))
        kinds = {**COLUMNS, "prediction": "number"}
        for name, kind in kinds.items():
            a, b = (side[name].head(sample) for side in (then, now))
            column = Column(name=name, kind=kind, origin="request")  # type: ignore[arg-type]
            chances[f"column {name}"] = compare_column(column, *prepare(a, b, kind), a, b).chance
        found.append(min(adjusted(chances).values()))
    return found


def world(rows: int, random: np.random.Generator, columns_of: int | None = None) -> pd.DataFrame:
    """Rows of a world in which nothing changes; columns are told of the first `columns_of` only."""
    import numpy as np
    import pandas as pd

    p = random.beta(2, 5, rows)
    table = pd.DataFrame({"prediction": p, "outcome": (random.random(rows) < p).astype(float)})
    told = min(rows, columns_of or rows)
    columns = {
        "steady": random.normal(size=told),
        "heavy": np.exp(2 * random.normal(size=told)),
        "gaps": np.where(random.random(told) < 0.2, np.nan, random.integers(0, 9, told)),
        "town": random.choice(["York", "Bath", "Ely", "Wells"], told, p=[0.6, 0.3, 0.09, 0.01]),
    }
    return table.join(pd.DataFrame(columns))


if __name__ == "__main__":
    main()
