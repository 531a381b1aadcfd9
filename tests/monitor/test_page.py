"""The report: one page for a person, the decision first, everything of a user's escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from tasks.data.results import Snapshot
from tasks.monitor.data_quality import daily_quality, snapshot_quality
from tasks.monitor.decide import decide
from tasks.monitor.page import write_page
from tasks.monitor.quality_chart import draw_quality
from tasks.monitor.results import BatchQuality, ColumnDrift
from tests.monitor.small import END, WATCHED, watch, world

EVIL = "<script>alert('x')</script>"


class Headings(HTMLParser):
    """The page's headings, and its text in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings, self.tags, self._inside = [""][:0], set[str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._inside = tag in ("h1", "h2")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.headings.append(data)
            self._inside = False


def test_the_page_is_in_the_order_of_what_matters(release: Path, tmp_path: Path):
    """Decision and reasons, quality with intervals, estimate, drift with the worst first, pictures, data quality."""
    rows = world(1500, 4, age=-1.5)
    rows.loc[rows.index >= 900, "outcome_known"] = None
    rows["noise_1"] += 3
    rows.loc[rows.index % 2 == 0, "town"] = EVIL
    signal = watch(rows, release, tmp_path)
    batches = [BatchQuality(source="s", batch=f"2013-0{n}", rows=50 + n, quarantined=n, missing={}) for n in (1, 2)]
    signal = signal.model_copy(update={"quality": tuple(batches)})
    decision = decide(signal, WATCHED)
    page = write_page(signal, decision, WATCHED).read_text()
    parsed = Headings(page)
    assert parsed.headings == [
        "Monitoring of shop",
        "Quality now, against the hold-out",
        "Estimated quality of 600 rows without an outcome",
        "What drifted, the worst first",
        "The distributions",
        "Data quality over time",
    ]
    assert "script" not in parsed.tags
    assert "&lt;script&gt;" in page
    assert page.index(decision.reasons[0].split(":")[0]) < page.index("Quality now")
    assert re.search(r"<b>auc</b> \(watched\)</td><td>0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", page)
    assert page.index(">noise_1<") < page.index(">town<") < page.index("more columns")
    assert 'href="drift.html"' in page
    assert signal.drift_report.is_file()
    assert write_page(signal, decision, WATCHED).read_text() == page, "the same signal gives the same page"


def test_unlike_columns_come_first_whatever_moved(release: Path, tmp_path: Path):
    """A column may be far off by its values, its gaps, or texts that training never saw."""
    signal = watch(world(50, 7), release, tmp_path)
    base = {"method": "m", "p_value": 0.001, "drifted": True, "missing_then": 0.0}
    columns = (
        ColumnDrift(column="moved", distance=0.3, missing_now=0.0, **base),
        ColumnDrift(column="gone", distance=0.1, missing_now=0.9, **base),
        ColumnDrift(column="strange", distance=0.2, missing_now=0.0, unseen_now=0.5, **base),
    )
    signal = signal.model_copy(update={"columns": columns})
    page = write_page(signal, decide(signal, WATCHED), WATCHED).read_text()
    assert page.index(">gone<") < page.index(">strange<") < page.index(">moved<")


def test_quality_of_a_snapshot_is_read_from_footers(tmp_path: Path):
    """Rows and gaps of each batch, with what was quarantined of it; the newest batches of many."""
    for month in range(1, 5):
        path = tmp_path / "trips" / f"2026-0{month}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame({"a": [1.0] * month, "b": pd.array([None, *["x"] * (month - 1)], "string")}).to_parquet(path)
    snapshot = Snapshot(
        case="c",
        as_of=END,
        digest="d",
        path=tmp_path,
        rows={"trips": 10},
        quarantined={"trips": 3},
        quarantined_by_batch={"trips": {"2026-02": 3}},
        docs={},
    )
    quality = snapshot_quality(snapshot)
    assert [(b.batch, b.rows, b.quarantined, b.missing) for b in quality] == [
        ("2026-01", 1, 0, {"b": 1.0}),
        ("2026-02", 2, 3, {"b": 0.5}),
        ("2026-03", 3, 0, {"b": round(1 / 3, 6)}),
        ("2026-04", 4, 0, {"b": 0.25}),
    ]
    assert sum(b.rows for b in quality) == sum(pq.read_metadata(f).num_rows for f in tmp_path.rglob("*.parquet"))


def test_quality_of_scored_rows_is_by_day():
    times = pd.to_datetime(["2026-03-02 10:00", "2026-03-01 09:00", "2026-03-02 23:00"], utc=True)
    rows = pd.DataFrame({"event_timestamp": times, "a": [1.0, None, None]})
    assert [(b.batch, b.rows, b.missing) for b in daily_quality(rows, ["a"])] == [
        ("2026-03-01", 1, {"a": 1.0}),
        ("2026-03-02", 2, {"a": 0.5}),
    ]


def test_charts_escape_names_and_leave_out_tiny_batches():
    """A month that has just begun is a bar, but no point of the shares; one batch alone is a line of a table."""
    large = [BatchQuality(source=EVIL, batch=str(n), rows=40, missing={EVIL: 0.1 * n}) for n in (1, 2)]
    tiny = BatchQuality(source=EVIL, batch="3", rows=1, missing={EVIL: 1.0})
    page = "".join(draw_quality([*large, tiny, BatchQuality(source="static", batch="all", rows=9, missing={})]))
    assert "<script" not in page
    assert page.count("<rect") == 6
    assert page.count("<circle") == 2
    assert "20.0%" in page
    assert page.count("<svg") == 2
    assert draw_quality([]) == []
