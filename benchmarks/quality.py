"""AUC by month on the real flights: trained once on January to March, and trained anew each month.

    python -m benchmarks.quality [--quick] [--json FILE]

Each month is scored with what was known an hour before each flight; the outcomes are those known by the year's end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.table import Report, arguments
from tasks.features.results import Frame
from tasks.train.config import Target
from tasks.train.results import Candidate

CASE = "flights"
MONTHS = range(4, 13)
COLUMNS = ["month", "flights", "trained once", "study", "trained monthly", "study"]
# of an earlier study on the same data, with features of its own
STUDY = {
    "never": [0.727, 0.761, 0.759, 0.734, 0.721, 0.710, 0.694, 0.688, 0.737],
    "monthly": [0.727, 0.782, 0.785, 0.776, 0.742, 0.753, 0.716, 0.705, 0.739],
}


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"DRIFTLINE_STATE": f"{home}/state", "DRIFTLINE_DATA": f"{home}/data"}
        measure(MONTHS[:2] if options.quick else MONTHS, Report("AUC by month", COLUMNS), options.json)


def measure(months: Sequence[int], report: Report, json: Path | None) -> None:
    """Train as of each month's start, score the month after it, and print both policies beside the study."""
    from flows.case import TabularCase
    from flows.run_context import Request, run_context
    from flows.steps import prepare_snapshot
    from tasks.core.settings import apply_environment, settings
    from tasks.data.results import TimeWindow
    from tasks.features.task import window_frame

    apply_environment(settings())
    with run_context(Request(case=CASE, as_of=datetime(2014, 1, 2, tzinfo=UTC))) as end:
        year = prepare_snapshot(end)
        assert isinstance(end.case, TabularCase)
        section, state = end.case, end.settings.state
        first = None
        for number, month in enumerate(months):
            start = datetime(2013, month, 1, tzinfo=UTC)
            stop = datetime(2013 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            newest = _trained(start)
            first = first or newest
            frame = window_frame(section.frame_spec, year, state, TimeWindow(start=start, end=stop))
            once, anew = (_auc(model, frame, section.target) for model in (first, newest))
            report.row(f"{start:%Y-%m}", frame.rows, once, STUDY["never"][number], anew, STUDY["monthly"][number])
            report.figure(f"auc_once_{month:02}", once)
            report.figure(f"auc_monthly_{month:02}", anew)
    report.finish(["scikit-learn", "duckdb", "feast"], json)


def _trained(as_of: datetime) -> Candidate:
    from flows.case import TabularCase
    from flows.run_context import Request, run_context
    from flows.steps import prepare_snapshot
    from tasks.features.task import training_frame
    from tasks.train.task import train_candidate

    with run_context(Request(case=CASE, as_of=as_of)) as run:
        assert isinstance(run.case, TabularCase)
        case = run.case
        state = run.settings.state
        frame = training_frame(case.frame_spec, prepare_snapshot(run), state)
        return train_candidate(run.origin, frame, case.target, case.train)


def _auc(candidate: Candidate, frame: Frame, target: Target) -> float:
    import pandas as pd

    from tasks.train.metrics import compute_metrics as metrics
    from tasks.train.tabular.model_file import load, predict

    rows = pd.read_parquet(frame.path)
    rows = rows[rows[target.column].notna()]
    answers = predict(load(candidate.folder / "model.skops"), rows, candidate.columns)
    return metrics(rows[target.column].to_numpy("float64"), answers, target.task)["auc"]


if __name__ == "__main__":
    main()
