"""The flights problem as one plain script, the fair lower bound for the flow: DuckDB, pandas and scikit-learn.

It reads the same files with the same SQL, holds the same expectations in hand-written SQL, puts the same rows aside,
joins as of the same moments, fits the same estimator, and gives the same metrics. It keeps nothing but the model: no
snapshot, no report, no record, nothing to start again from.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd

CSV = "read_csv('{}', nullstr=['NA', ''])"

# What a row must not be: critical ones are put aside, the others only counted.
CRITICAL = {
    "flights": [
        "flight_id IS NULL",
        "carrier IS NULL",
        "dest IS NULL",
        "carrier NOT IN (SELECT carrier FROM airlines)",
        "origin NOT IN ('EWR', 'JFK', 'LGA')",
        "NOT regexp_full_match(tailnum, '[A-Z0-9]{5,6}')",
        "flight NOT BETWEEN 1 AND 99999",
        "distance NOT BETWEEN 50 AND 6000",
        "sched_dep_time NOT BETWEEN 0 AND 2359",
        "dep_time NOT BETWEEN 1 AND 2400",
        "dep_delay NOT BETWEEN -60 AND 1440",
        "arr_delay NOT BETWEEN -120 AND 1440",
        "air_time NOT BETWEEN 10 AND 800",
        "published_at <= scheduled_at",
    ],
    "weather": [
        "origin IS NULL",
        "observed_at IS NULL",
        "origin NOT IN ('EWR', 'JFK', 'LGA')",
        "temp NOT BETWEEN -30 AND 120",
        "humid NOT BETWEEN 0 AND 100",
        "wind_speed NOT BETWEEN 0 AND 150",
        "precip NOT BETWEEN 0 AND 10",
        "visib NOT BETWEEN 0 AND 10",
    ],
    "planes": ["tailnum IS NULL", "seats NOT BETWEEN 1 AND 853"],
    "airports": ["faa IS NULL", "length(faa) != 3", "lat NOT BETWEEN -90 AND 90", "lon NOT BETWEEN -180 AND 180"],
    "airlines": ["carrier IS NULL", "length(carrier) != 2", "name IS NULL"],
}
WARNING = {
    "flights": [
        "tailnum IS NULL",
        "dest NOT IN (SELECT faa FROM airports)",
        "tailnum NOT IN (SELECT tailnum FROM planes)",
        "distance < air_time",
        "dep_time IS NULL",
    ],
    "weather": ["pressure NOT BETWEEN 900 AND 1100"],
    "planes": ["year NOT BETWEEN 1903 AND 2013"],
}
KEYS = {
    "flights": "flight_id",
    "weather": "origin, observed_at",
    "planes": "tailnum",
    "airports": "faa",
    "airlines": "carrier",
}
TYPES = {
    "flights": {
        "scheduled_at": "TIMESTAMP WITH TIME ZONE",
        "flight": "INTEGER",
        "dep_delay": "INTEGER",
        "arr_delay": "INTEGER",
    },
    "weather": {"temp": "DOUBLE"},
}
JOIN = """
SELECT x.*, r.* EXCLUDE (route, event_timestamp), s.* EXCLUDE (service, event_timestamp),
       o.* EXCLUDE (origin, event_timestamp), c.* EXCLUDE (carrier, event_timestamp),
       w.* EXCLUDE (origin, event_timestamp, created_timestamp)
FROM (SELECT * FROM ({examples}) WHERE late IS NOT NULL) x
ASOF LEFT JOIN ({route_day}) r ON x.route = r.route AND x.event_timestamp >= r.event_timestamp
ASOF LEFT JOIN ({service_day}) s ON x.service = s.service AND x.event_timestamp >= s.event_timestamp
ASOF LEFT JOIN ({origin_state}) o ON x.origin = o.origin AND x.event_timestamp >= o.event_timestamp
ASOF LEFT JOIN ({carrier_state}) c ON x.carrier = c.carrier AND x.event_timestamp >= c.event_timestamp
ASOF LEFT JOIN ({weather}) w ON x.origin = w.origin AND x.event_timestamp >= w.created_timestamp
ORDER BY x.event_timestamp, x.example_id
"""


class Clock:
    """Seconds of each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def work(case: Path, as_of: datetime, out: Path) -> dict[str, Any]:
    """Raw files to a judged model in `out`; its metrics, and the seconds of each part."""
    import duckdb

    declared = yaml.safe_load((case / "case.yaml").read_text(encoding="utf-8"))
    clock = Clock()
    out.mkdir(parents=True)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        with clock.part("read"):
            for name, source in declared["data"]["sources"].items():
                read(db, case, name, source, as_of, out)
        with clock.part("validate"):
            found = [validate(db, name) for name in KEYS]
        with clock.part("features"):
            frame = features(db, case)
    with clock.part("train"):
        columns = [*declared["features"]["request"], *features_of(frame, declared)]
        learn, held = split(frame)
        model = train(learn, columns, declared["train"], out)
    with clock.part("evaluate"):
        metrics = evaluate(model, held, columns)
    return {
        "train_rows": len(learn),
        "quarantined": sum(found),
        "parts": clock.seconds,
        **metrics,
    }


def read(
    db: duckdb.DuckDBPyConnection, case: Path, name: str, source: dict[str, Any], as_of: datetime, out: Path
) -> None:
    """Make the table `name` of what was known at `as_of`."""
    from tasks.data.origins.local import locate

    path = locate(source["uri"], case)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            path = Path(archive.extract(archive.namelist()[0], out))
    db.execute(f"CREATE OR REPLACE VIEW raw AS FROM {CSV.format(path)}")
    sql = (case / source["sql"]).read_text(encoding="utf-8") if "sql" in source else "FROM raw"
    late = ", ".join(
        f"CASE WHEN {moment} <= $as_of THEN {column} END AS {column}"
        for moment, columns in source.get("late", {}).items()
        for column in columns
    )
    known = f"WHERE {source['known_at']} <= $as_of" if "known_at" in source else ""
    columns = f"* REPLACE ({late})" if late else "*"
    db.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM ({sql}) {known}", {"as_of": as_of} if known else None)


def validate(db: duckdb.DuckDBPyConnection, name: str) -> int:
    """Hold a table against what is expected of it, and take out the rows that are bad; their number.

    Raises: ValueError when types, keys, the volume or the share of bad rows are not as expected.
    """
    types = {column: kind for column, kind, *_ in db.execute(f"DESCRIBE {name}").fetchall()}
    wrong = [column for column, kind in TYPES.get(name, {}).items() if types[column] != kind]
    bad = " OR ".join(f"coalesce({condition}, false)" for condition in CRITICAL[name])
    conditions = CRITICAL[name] + WARNING.get(name, [])
    counts = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions)
    rows, aside, *_ = db.execute(f"SELECT count(*), count(*) FILTER ({bad}), {counts} FROM {name}").fetchall()[0]
    key = KEYS[name]
    twice = db.execute(f"SELECT count(*) FROM (SELECT {key} FROM {name} GROUP BY {key} HAVING count(*) > 1)").fetchall()
    if name == "flights":
        db.execute(
            "SELECT strftime(scheduled_at, '%Y-%m') AS month, count(*), max(scheduled_at), avg(dep_delay) "
            "FROM flights GROUP BY month"
        ).fetchall()
    if wrong or twice[0][0] or not rows or aside > 0.01 * rows:
        raise ValueError(f"{name}: types {wrong}, {twice[0][0]} keys twice, {aside} of {rows} rows bad")
    if aside:
        db.execute(f"DELETE FROM {name} WHERE {bad}")
    return int(aside)


def features(db: duckdb.DuckDBPyConnection, case: Path) -> pd.DataFrame:
    """Each example with what was known at its moment; values older than their TTL are emptied."""
    sql = {path.stem: path.read_text(encoding="utf-8").strip() for path in (case / "sql").glob("*.sql")}
    fresh = {
        "route_day": "35 DAYS",
        "service_day": "35 DAYS",
        "origin_state": "6 HOURS",
        "carrier_state": "6 HOURS",
        "weather": "6 HOURS",
    }
    views = {name: f"SELECT *, event_timestamp AS {name}_at FROM (\n{sql[name]}\n)" for name in fresh}
    db.execute(f"CREATE TABLE frame AS {JOIN.format(examples=sql['examples'], **views)}")
    for name, span in fresh.items():
        known = [row[0] for row in db.execute(f"DESCRIBE FROM ({sql[name]})").fetchall()]
        keys = ("route", "service", "origin", "carrier", "event_timestamp", "created_timestamp")
        mine = [c for c in known if c not in keys]
        emptied = ", ".join(f"{column} = NULL" for column in mine)
        db.execute(f"UPDATE frame SET {emptied} WHERE {name}_at < event_timestamp - INTERVAL {span}")
    return db.execute(f"SELECT * EXCLUDE ({', '.join(f'{name}_at' for name in fresh)}) FROM frame").df()


def features_of(frame: pd.DataFrame, declared: dict[str, Any]) -> list[str]:
    """The views' columns, in their order."""
    others = {"example_id", "event_timestamp", "route", "service", "late", *declared["features"]["request"]}
    return [column for column in frame.columns if column not in others]


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    held = frame["event_timestamp"] >= frame["event_timestamp"].max() - pd.Timedelta(days=7)
    return frame[~held], frame[held]


def train(learn: pd.DataFrame, columns: list[str], declared: dict[str, Any], out: Path) -> Any:
    """Fit and save the estimator that the case declares."""
    import joblib
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    nan = float("nan")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=nan, encoded_missing_value=nan)
    encoding = make_column_transformer((codes, ["carrier", "origin", "dest"]), remainder="passthrough")
    model = make_pipeline(
        encoding, HistGradientBoostingClassifier(**declared["parameters"], random_state=declared["seed"])
    )
    model.fit(learn[columns], learn["late"])
    joblib.dump(model, out / "model.joblib")
    return model


def evaluate(model: Any, held: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Metrics of the hold-out, as a whole, by month and by slice."""
    y, p = held["late"].to_numpy(), model.predict_proba(held[columns])[:, 1]
    months = held["event_timestamp"].dt.strftime("%Y-%m").to_numpy()
    tables = {
        name: {value: measure(y[values == value], p[values == value]) for value in sorted(set(values))}
        for name, values in (("month", months), ("carrier", held["carrier"]), ("origin", held["origin"]))
    }
    return {"holdout_rows": len(held), "metrics": measure(y, p), "tables": tables}


def measure(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        brier_score_loss,
        f1_score,
        log_loss,
        roc_auc_score,
    )

    if y.min() == y.max():
        return {"rows": len(y)}
    bins = np.array_split(np.argsort(p, kind="stable"), 10)
    labels = p >= 0.5  # as the flow decides
    return {
        "rows": len(y),
        "accuracy": float(accuracy_score(y, labels)),
        "macro_f1": float(f1_score(y, labels, average="macro")),
        "auc": float(roc_auc_score(y, p)),
        "average_precision": float(average_precision_score(y, p)),
        "brier": float(brier_score_loss(y, p)),
        "log_loss": float(log_loss(y, p)),
        "calibration_error": float(sum(abs(p[b].mean() - y[b].mean()) * len(b) for b in bins if len(b)) / len(y)),
    }
