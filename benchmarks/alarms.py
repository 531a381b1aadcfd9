"""How often monitoring calls something a change when nothing has changed, at any number of rows.

    python -m benchmarks.alarms [--quick] [--json FILE] [--windows N] [--rows 1000,1000000] [--sample 5000]

Each window is a new reference and new rows of one world, judged as `monitor` judges them: every column, the
predictions, the watched metric and the bias. Evidently's distances are left out: a change must also be large enough to
matter, so that the alarms of a case are fewer than what is counted here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.table import Report, arguments
from tasks.features.results import Column
from tasks.monitor.drift import compare_column, prepare
from tasks.monitor.tabular.labels_and_predictions import labels_and_predictions
from tasks.monitor.tabular.metric_permutation import performance_p_values
from tasks.statistics.permutation import benjamini_hochberg
from tasks.train.classes import DEFAULT_CLASSES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HELD = 5000  # rows of a hold-out
COLUMNS = {"steady": "number", "heavy": "number", "gaps": "number", "town": "text"}


def main() -> None:
    options = arguments(
        "How often monitoring calls something a change when nothing has changed.",
        windows="how many of each size; default: 200, quick: 10",
        rows="of a window, sizes separated by commas; default: 1000,1000000, quick: 1000",
        sample="rows on which columns are compared; default: 5000",
    )
    windows = int(options.windows or (10 if options.quick else 200))
    sizes = [int(size) for size in (options.rows or ("1000" if options.quick else "1000,1000000")).split(",")]
    report = Report(
        "Windows in which nothing has changed", ["rows", "windows", "with an alarm at .05", "at .2", "seconds a window"]
    )
    for rows in sizes:
        start = time.perf_counter()
        least = lowest(rows, windows, int(options.sample or 5000))
        seconds = (time.perf_counter() - start) / windows
        shares = {rate: sum(value <= rate for value in least) / windows for rate in (0.05, 0.2)}
        report.row(rows, windows, *shares.values(), seconds)
        report.figure(f"alarms_at_05_{rows}", shares[0.05])
    report.finish(["evidently", "scipy"], options.json)


def lowest(rows: int, windows: int, sample: int, seed: int = 0) -> list[float]:
    """The lowest adjusted p-value of each window: the rate at which it raises an alarm."""
    import numpy as np

    random = np.random.default_rng(seed)
    found = []
    for _ in range(windows):
        then, now = world(HELD, random), world(rows, random, columns_of=sample)
        sides = [labels_and_predictions(side, "outcome", DEFAULT_CLASSES) for side in (now, then)]
        chances = dict(performance_p_values(sides[0], sides[1], DEFAULT_CLASSES, "auc"))
        kinds = {**COLUMNS, "prediction": "number"}
        for name, kind in kinds.items():
            a, b = (side[name].head(sample) for side in (then, now))
            column = Column(name=name, kind=kind, origin="request")
            chances[f"column {name}"] = compare_column(column, *prepare(a, b, kind), a, b).p_value
        found.append(min(benjamini_hochberg(chances).values()))
    return found


def world(rows: int, random: np.random.Generator, columns_of: int | None = None) -> pd.DataFrame:
    """Rows of a world in which nothing changes; columns are told of the first `columns_of` only."""
    import numpy as np
    import pandas as pd

    p = random.beta(2, 5, rows)
    table = pd.DataFrame({"prediction": p, "outcome": (random.random(rows) < p).astype(float)})
    column_rows = min(rows, columns_of or rows)
    columns = {
        "steady": random.normal(size=column_rows),
        "heavy": np.exp(2 * random.normal(size=column_rows)),
        "gaps": np.where(random.random(column_rows) < 0.2, np.nan, random.integers(0, 9, column_rows)),
        "town": random.choice(["York", "Bath", "Ely", "Wells"], column_rows, p=[0.6, 0.3, 0.09, 0.01]),
    }
    return table.join(pd.DataFrame(columns))


if __name__ == "__main__":
    main()
