"""A table without time is monitored by its requests and scored files, with outcomes by file or feedback (row 44)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import DataError, NothingServed
from tasks.core.mlflow import Tracking
from tasks.core.places import Places
from tasks.data.config import Source
from tasks.evaluate.config import ChampionGate
from tasks.monitor.config import TabularSpec
from tasks.monitor.decide import decide
from tasks.monitor.page import write_page
from tasks.monitor.results import ScoredRows, Signal
from tasks.monitor.signal import Window
from tasks.monitor.tabular.measure import measure_rows
from tasks.monitor.tabular.outcome_files import OutcomeFile, store_outcomes
from tasks.monitor.tabular.outcomes import NUMBERED, ScoredWithOutcomes
from tasks.monitor.tabular.served import read_served
from tasks.train.tabular.model_file import load, predict
from tests.monitor.small import CLASSIFICATION, COLUMNS, END, RELEASE, START, WATCHED, sealed_release, world

WINDOW = Window("shop", RELEASE, END, START, END)
SOURCE = Source(uri="file://customers.csv", key=("customer",))
SPEC = TabularSpec(CLASSIFICATION, WATCHED, ChampionGate(loss="brier"), keys=("customer",))


def requests(rows: pd.DataFrame, release: Path, path: Path, labels: dict[str, object] | None = None) -> ScoredRows:
    """These rows as the gateway's log has them after they were scored."""
    scores = predict(load(release / "model.skops"), rows, COLUMNS)
    values = rows[[column.name for column in COLUMNS]].astype(object).where(lambda each: each.notna(), None)
    sent = [
        {key: value for key, value in {"example_id": id_, **row}.items() if key != "example_id" or value}
        for id_, row in zip(rows["example_id"], values.to_dict("records"), strict=True)
    ]
    pd.DataFrame(
        {
            "request_id": [f"req-{number // 10}" for number in range(len(rows))],
            "at": rows["event_timestamp"],
            "position": np.arange(len(rows)) % 10,
            "features": [json.dumps(row) for row in sent],
            "prediction": [json.dumps({"prediction": int(s > 0.5), "score": s}) for s in scores],
            "label": [json.dumps(labels[id_]) if labels and id_ in labels else None for id_ in rows["example_id"]],
        }
    ).to_parquet(path)
    return ScoredRows(path=path, unreadable=0)


def places_in(folder: Path) -> Places:
    return Places(folder / "state", Tracking.in_folder(folder / "state"), folder / "data")


def served(rows: pd.DataFrame, release: Path, place: Path, spec: TabularSpec = SPEC) -> ScoredWithOutcomes:
    logged = requests(rows, release, place / "rows.parquet")
    return read_served(sealed_release(release), spec, WINDOW, logged, places_in(place))


def bring(rows: pd.DataFrame, place: Path, **columns: object) -> pd.Series:
    """A file of outcomes for these rows, as of the window's last day."""
    file = place / "truth.csv"
    rows.rename(columns={"example_id": "customer"})[["customer", "outcome_known"]].assign(**columns).to_csv(
        file, index=False
    )
    at, outcomes = END - timedelta(days=1), OutcomeFile(file, SOURCE, "outcome_known")
    return store_outcomes("shop", outcomes, at, place / "data" / "predictions").values


def measured(scored: ScoredWithOutcomes, release: Path, place: Path) -> Signal:
    return measure_rows(sealed_release(release), SPEC, WINDOW, scored, places_in(place))


def test_outcomes_of_a_file_decide(release: Path, tmp_path: Path):
    """The concept changed: requests and a file of keys and outcomes retrain, by the rules of tables with time."""
    rows = world(1500, 4, age=-1.5)
    bring(rows, tmp_path)
    signal = measured(served(rows, release, tmp_path), release, tmp_path)
    assert (signal.rows, signal.rows_with_outcome, signal.origins) == (1500, 1500, {"requests": 1500})
    assert decide(signal, WATCHED).action == "retrain"
    low, high = signal.intervals["auc"]
    assert low < signal.metrics["auc"] < high < signal.reference_intervals["auc"][0]


def test_without_outcomes_it_alerts_at_most(release: Path, tmp_path: Path):
    """Categories that training never saw are counted and named, and alert; nothing retrains (rows 39 and 44)."""
    rows = world(900, 3)
    rows.loc[rows.index % 4 == 0, "town"] = " Oslo "
    signal = measured(served(rows, release, tmp_path), release, tmp_path)
    town = next(column for column in signal.columns if column.column == "town")
    assert (town.unseen, town.unseen_now, town.unseen_then, town.drifted) == (("Oslo",), 0.25, 0, True)
    decision = decide(signal, WATCHED)
    assert decision.action == "alert"
    assert any("25% of the rows have a town that training never saw (Oslo)" in reason for reason in decision.reasons)
    assert "Oslo" in write_page(signal, decision, WATCHED).read_text()


def test_the_first_request_is_enough(release: Path, tmp_path: Path):
    """One row is measured and ignored; none at all says what is missing and what to do, and is no failure."""
    signal = measured(served(world(1, 3), release, tmp_path), release, tmp_path)
    assert (signal.rows, decide(signal, WATCHED).action) == (1, "ignore")
    with pytest.raises(NothingServed, match="driftline predict shop FILE") as error:
        served(world(1, 3).head(0), release, tmp_path)
    assert error.value.exit_code == 0
    with pytest.raises(NothingServed, match="DRIFTLINE_GATEWAY_LOG is none"):
        read_served(sealed_release(release), SPEC, WINDOW, None, places_in(tmp_path))


def test_feedback_is_an_outcome_and_goes_before_a_file(release: Path, tmp_path: Path):
    rows = world(20, 3)
    bring(rows, tmp_path, outcome_known=0)
    logged = requests(rows, release, tmp_path / "rows.parquet", {"3-00000": 1, "3-00001": True, "3-00002": "what"})
    scored = read_served(sealed_release(release), SPEC, WINDOW, logged, places_in(tmp_path))
    assert scored.rows["outcome"].tolist()[:4] == pytest.approx([1, 1, np.nan, 0], nan_ok=True)
    assert scored.notes == ("1 outcomes are not one of 0, 1, for instance what.",)


def test_an_id_of_two_rows_names_neither(release: Path, tmp_path: Path):
    """Positions within each request serve as ids: outcomes are not joined to them, and that is told (row 24)."""
    rows = world(40, 3)
    bring(rows.head(10).assign(example_id=[str(n) for n in range(10)]), tmp_path)
    scored = served(rows.assign(example_id=[str(n % 10) for n in range(40)]), release, tmp_path)
    assert scored.rows["outcome"].isna().all()
    assert "40 rows share their id" in scored.notes[0]
    again = pd.concat([rows.head(5), rows.head(5)])
    assert len(served(again, release, tmp_path).rows) == 5, "a row that was sent twice counts once"


def test_rows_named_by_position_get_no_outcome(release: Path, tmp_path: Path):
    """row_number() as the key: another delivery's row 7 is another row, so nothing is joined (row 24)."""
    rows = world(20, 3)
    bring(rows, tmp_path)
    spec = TabularSpec(CLASSIFICATION, WATCHED, ChampionGate(loss="brier"), keys=("customer",), rows_are_numbered=True)
    scored = served(rows, release, tmp_path, spec)
    assert scored.rows["outcome"].isna().all()
    assert scored.notes == (NUMBERED,)


def test_a_row_may_be_named_by_its_key_columns(release: Path, tmp_path: Path):
    """A request without example_id that has the source's key among its other columns."""
    rows = world(5, 3)
    bring(rows, tmp_path)
    logged = requests(rows.assign(example_id=None), release, tmp_path / "rows.parquet")
    table = pd.read_parquet(logged.path)
    named = zip(table["features"], rows["example_id"], strict=True)
    table["features"] = [json.dumps({**json.loads(text), "customer": id_}) for text, id_ in named]
    table.to_parquet(logged.path)
    scored = read_served(sealed_release(release), SPEC, WINDOW, logged, places_in(tmp_path))
    assert scored.rows["outcome"].tolist() == rows["outcome_known"].tolist()


def test_a_file_of_outcomes_is_checked(tmp_path: Path):
    """Two outcomes for a key, no outcome, or a missing column: the message names them; a corrected file wins."""
    rows = world(3, 3)
    with pytest.raises(DataError, match="two different outcomes") as error:
        bring(pd.concat([rows, rows.head(1).assign(outcome_known=9)]), tmp_path)
    assert "3-00000" in str(error.value)
    with pytest.raises(DataError, match="has no outcome"):
        bring(rows, tmp_path, outcome_known=None)
    source = Source(uri="file://customers.csv", key=("customer", "shop"))
    file = OutcomeFile(tmp_path / "truth.csv", source, "late")
    with pytest.raises(DataError, match="lacks shop, late") as error:
        store_outcomes("shop", file, END, tmp_path)
    assert "customer and shop (or example_id), and late" in str(error.value)
    assert not list(tmp_path.rglob("*.parquet"))


def test_rows_named_by_content_are_joined_by_it(tmp_path: Path):
    """The case's SQL makes the key of the features, so a file sorted anew names the same rows (row 24)."""
    content = "SELECT md5(row(age, town)::VARCHAR) AS name, * FROM raw"
    source = Source(uri="file://customers.csv", key=("name",), sql=content)
    rows = pd.DataFrame({"age": [30, 40, 50], "town": ["Bath", "York", "Ely"], "late": [1, 0, 1]})
    stored = []
    for number, table in enumerate((rows, rows.iloc[::-1])):
        table.to_csv(tmp_path / "truth.csv", index=False)
        file = OutcomeFile(tmp_path / "truth.csv", source, "late")
        stored.append(store_outcomes("shop", file, END + timedelta(seconds=number), tmp_path).values)
    assert stored[0].equals(stored[1])
    assert sorted(stored[0]) == [0, 1, 1]
