"""A search on the flights against the hand-made configuration and the peers: trained once, judged by month."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.search_case import Workplace, trained
from benchmarks.search_peers import Fitted, Peer, Rows, Systems, fit_peer, once
from benchmarks.table import Report, median

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tasks.train.results import Candidate

CASE, TARGET = "flights", "late"
TRAINED, END = datetime(2013, 4, 1, tzinfo=UTC), datetime(2014, 1, 2, tzinfo=UTC)
RESAMPLES = 100  # of days


def measure_flights(report: Report, systems: Systems, folder: Path) -> None:
    """Rows and figures of the flights; a search gets less than half of the peers' seconds.

    What was answered before in this folder is not answered again, so that the systems can be run one by one.
    """
    with Workplace(folder, CASE) as place:
        judged = judged_flights()
        found = {
            "hand": once(folder, "hand", lambda: by_hand(judged)),
            "driftline": once(folder, "driftline", lambda: searched(place, systems, judged)),
        }
        for peer in systems.peers:
            found[peer.name] = once(folder, peer.name, partial(fit_flights, peer, systems, judged))
    judge(report, judged, found)


def by_hand(judged: pd.DataFrame) -> Fitted:
    """The answers of the case as it is."""
    start = time.perf_counter()
    return answered(trained(CASE, TRAINED), judged, start, "as the case is")


def searched(place: Workplace, systems: Systems, judged: pd.DataFrame) -> Fitted:
    """The answers of what a search adopts, which is as of the case's own moment, and trained on its rows."""
    result = place.search(CASE, f"{0.35 * systems.flights_seconds:.0f}s")
    place.run("search", "adopt", CASE, str(result["chosen"]))
    start = time.perf_counter() - result["seconds"]
    label = next(trial["label"] for trial in result["trials"] if trial["number"] == result["chosen"])
    return answered(trained(CASE, TRAINED), judged, start, f"{label}, {len(result['trials'])} trials")


def answered(candidate: Candidate, judged: pd.DataFrame, start: float, chosen: str) -> Fitted:
    """A candidate's answers, with the seconds since `start`."""
    from tasks.train.tabular.model_file import load, predict

    seconds = time.perf_counter() - start
    model = load(candidate.folder / "model.skops")
    return Fitted(predict(model, judged, candidate.columns), seconds, alone(model, judged), "", chosen)


def fit_flights(peer: Peer, systems: Systems, judged: pd.DataFrame) -> Fitted:
    return fit_peer(peer, rows_of(judged), systems.flights_seconds, systems.threads)


def rows_of(judged: pd.DataFrame) -> Rows:
    """What a peer learns and answers; it tunes on the week that the case holds out."""
    import pandas as pd

    from tasks.train.tabular.split import split_frame

    hand = trained(CASE, TRAINED)
    learn, held = split_frame(pd.read_parquet(hand.frame), _case().train.split)
    names = [column.name for column in hand.columns]
    return Rows("classification", *(as_rows(frame, names) for frame in (learn, judged, held)))


def judge(report: Report, judged: pd.DataFrame, found: dict[str, Fitted]) -> None:
    """A row a month, the mean, and the figures."""
    months = judged["event_timestamp"].dt.strftime("%Y-%m").to_numpy()
    late = judged[TARGET].to_numpy("float64")
    order = ("driftline", "autogluon", "flaml", "hand")
    for month in sorted(set(months)):
        rows = months == month
        cells = [f"{auc(late[rows], found[name].predictions[rows]):.4f}" if name in found else "" for name in order]
        report.row("flights", month, "auc", *cells, "", "")
    means = {name: mean_auc(late, each.predictions, months) for name, each in found.items()}
    cells = [f"{means[name]:.4f}" if name in means else "" for name in order]
    seconds = ", ".join(f"{name} {each.seconds:.0f}" for name, each in found.items())
    notes = [f"{name} {each.version}".strip() + f": {each.chosen}" for name, each in found.items()]
    report.row("flights", "mean", "auc", *cells, seconds, "; ".join(notes))
    for name, figure in (("hand", "flights_auto_minus_hand_auc"), ("autogluon", "flights_auto_minus_autogluon_auc")):
        if name in found:
            low, high = interval(judged, late, months, found["driftline"].predictions, found[name].predictions)
            report.figure(figure, means["driftline"] - means[name])
            report.figure(f"{figure}_low", low)
            report.figure(f"{figure}_high", high)
    report.figure("flights_ms_per_row", found["driftline"].ms_per_row)
    if "autogluon" in found:
        report.figure("flights_seconds_over_autogluon", found["driftline"].seconds / found["autogluon"].seconds)


def judged_flights() -> pd.DataFrame:
    """The flights of April to December with their outcomes, each with what was known an hour before it."""
    import pandas as pd

    from flows.run_context import Request, run_context
    from flows.steps import prepare_snapshot
    from tasks.data.results import TimeWindow
    from tasks.features.task import window_frame

    with run_context(Request(case=CASE, as_of=END)) as run:
        window = TimeWindow(start=TRAINED, end=datetime(2014, 1, 1, tzinfo=UTC))
        frame = window_frame(_case().frame_spec, prepare_snapshot(run), run.settings.state, window)
    rows = pd.read_parquet(frame.path)
    return rows[rows[TARGET].notna()].reset_index(drop=True)


def as_rows(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The features and the target, for a peer."""
    rows = frame[frame[TARGET].notna()]
    return rows[list(names)].assign(target=rows[TARGET].astype(int))


def alone(model: Any, rows: pd.DataFrame) -> float:
    """Median milliseconds of a prediction of one row."""
    from tasks.train.tabular.scoring import predict

    records = rows[[column.name for column in model.columns]].head(200)
    seconds = []
    for at in range(len(records)):
        values = {str(name): [value] for name, value in records.iloc[at].items()}
        start = time.perf_counter()
        predict(model, values)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def auc(late: np.ndarray, answer: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(late, answer))


def mean_auc(late: np.ndarray, answer: np.ndarray, months: np.ndarray) -> float:
    return fmean(auc(late[months == month], answer[months == month]) for month in sorted(set(months)))


def interval(
    judged: pd.DataFrame, late: np.ndarray, months: np.ndarray, one: np.ndarray, other: np.ndarray
) -> tuple[float, float]:
    """95 % interval of the difference of mean AUCs; the days of each month are resampled."""
    import numpy as np

    days = judged["event_timestamp"].dt.strftime("%Y-%m-%d").to_numpy()
    random, differences = np.random.default_rng(0), []
    by_month = {
        month: [np.flatnonzero(days == day) for day in sorted(set(days[months == month]))] for month in set(months)
    }
    for _ in range(RESAMPLES):
        by_draw = []
        for of_days in by_month.values():
            drawn = np.concatenate([of_days[at] for at in random.integers(0, len(of_days), len(of_days))])
            by_draw.append(auc(late[drawn], one[drawn]) - auc(late[drawn], other[drawn]))
        differences.append(fmean(by_draw))
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _case() -> Any:
    from flows.case import load_case
    from tasks.core.settings import settings

    return load_case(CASE, settings().cases)
