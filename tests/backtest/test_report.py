"""The figures of a replay, its lines and its page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tasks.backtest.report import lines, write
from tasks.backtest.results import Challenge, MonthResult, MonthScore
from tasks.backtest.summary import Backtest, summarise_backtest
from tasks.monitor.results import Decision

LINEAGE = {"commit": "c" * 40, "dirty": "false"}
MONTHS = (4, 5, 6)


def played(folder: Path, policy: str, brier: list[float], verdicts: list[str | None], names=("brier", "auc")):
    """Three months of a policy whose losses have these means; at the end of two of them something may be retrained."""
    for i, number in enumerate(MONTHS):
        month, digest = datetime(2013, number, 1, tzinfo=UTC), f"{policy}{number}".ljust(64, "0")
        noise = np.random.default_rng(number).normal(0, 0.01, 900)
        path = folder / f"{policy}-{number}.parquet"
        days = [f"2013-{number:02}-{1 + k // 30:02}" for k in range(900)]
        ids = [f"{number}-{k:04}" for k in range(900)]
        pd.DataFrame({"example_id": ids, "day": days, "loss": brier[i] + noise - noise.mean()}).to_parquet(path)
        scored = MonthScore(release=digest, rows=900, metrics={names[0]: brier[i], names[1]: 1 - brier[i]}, losses=path)
        verdict = verdicts[i] if i < 2 else None
        yield MonthResult(
            month=month,
            policy=policy,
            since=month,
            scored=scored,
            decision=decision(digest, month, folder) if i < 2 else None,
            action="retrain" if verdict else "ignore",
            challenge=verdict and challenge(verdict),
        )


def decision(release: str, at: datetime, folder: Path) -> Decision:
    return Decision(
        case="case",
        release=release,
        as_of=at,
        action="retrain",
        reasons=("auc is .6 <worse> & more",),
        evidence="e" * 64,
        folder=folder,
        digest="d" * 64,
    )


def challenge(verdict: str) -> Challenge:
    failed = () if verdict == "promote" else ("auc is 0.6, required >= 0.65",)
    return Challenge(verdict=verdict, failed=failed, weights="w" * 64, release=None, seconds=36.0)


@pytest.fixture
def figures(tmp_path) -> dict:
    never = played(tmp_path, "never", [0.20, 0.21, 0.22], [None, None])
    monthly = played(tmp_path, "monthly", [0.20, 0.19, 0.19], ["promote", "insufficient evidence"])
    return summarise_backtest(Backtest("case", None, "classification", 0.5, LINEAGE), [*never, *monthly])


def test_policies_are_counted_and_averaged(figures):
    """Means over months; what was retrained, promoted and not; the seconds at the price of an hour; the gain."""
    monthly = figures["policies"]["monthly"]
    assert monthly["brier_mean"] == pytest.approx((0.20 + 0.19 + 0.19) / 3)
    assert monthly["auc_mean"] == pytest.approx(1 - monthly["brier_mean"])
    assert (monthly["retrains"], monthly["promotions"], monthly["rejections"]) == (2, 1, 1)
    assert monthly["cost"] == pytest.approx(72 / 3600 * 0.5)
    assert monthly["gain"]["mean"] == pytest.approx((0 + 0.02 + 0.03) / 3)
    assert monthly["gain"]["low"] > 0
    assert monthly["auc_difference"] == pytest.approx(0.05 / 3)
    assert figures["policies"]["never"]["gain"]["mean"] == 0


def test_months_tell_what_was_seen_and_what_came_of_it(figures):
    """Each month and policy: quality, rows, the decision with reasons and evidence, and the outcome."""
    month = figures["months"]["2013-05"]
    assert month["monthly"]["outcome"] == "insufficient evidence"
    assert month["monthly"]["failed"] == ["auc is 0.6, required >= 0.65"]
    assert month["monthly"]["decision"]["evidence"] == "e" * 64
    assert month["never"]["outcome"] == "kept"
    assert month["never"]["rows"] == month["monthly"]["rows"] == 900
    assert month["monthly"]["gain"]["mean"] == pytest.approx(0.02)
    assert figures["months"]["2013-06"]["monthly"]["decision"] is None


def test_without_the_baseline_there_is_no_gain(tmp_path):
    """A replay of other policies alone has all but the gain, and its page is drawn without it."""
    alone = played(tmp_path, "decide", [0.2] * 3, [None, None])
    found = summarise_backtest(Backtest("case", "smoke", "classification", 0.1, LINEAGE), list(alone))
    assert found["policies"]["decide"]["gain"] is None
    assert write(found, tmp_path).page.read_text().count("<svg") == 2


def test_a_regression_has_metrics_of_its_own(tmp_path):
    """RMSE and R2 instead of Brier and AUC; the gain is in squared error."""
    never = played(tmp_path, "never", [2000.0, 2100.0, 2200.0], [None, None], ("rmse", "r2"))
    found = summarise_backtest(Backtest("case", None, "regression", 0.1, LINEAGE), list(never))
    assert found["loss"] == "squared_error"
    assert found["policies"]["never"]["rmse_mean"] == pytest.approx(2100)
    assert "2,100.0" in lines(found)


def test_the_page_stands_alone_and_is_well_formed(figures, tmp_path):
    """Charts as inline SVG that parses, no other file, what was seen escaped; the same figures give the same page."""
    report = write(figures, tmp_path / "out")
    text = report.page.read_text()
    charts = [part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(charts) == 3
    for chart in charts:
        ElementTree.fromstring("<svg" + chart)
    assert "src=" not in text
    assert "@import" not in text
    assert "&lt;worse&gt; &amp; more" in text
    assert "insufficient evidence" in text
    assert json.loads(report.json_file.read_text()) == figures
    assert write(figures, tmp_path / "again").page.read_text() == text


def test_the_terminal_gets_a_line_a_policy(figures):
    """Aligned columns, one line a policy, and none of the gain for what it is counted from."""
    head, never, monthly = lines(figures).splitlines()
    assert head.split()[:3] == ["policy", "brier", "mean"]
    assert never.split()[-3:] == ["-"] * 3
    assert monthly.split()[1:6] == ["0.1933", "0.8067", "2", "1", "1"]
    assert monthly.split()[-3] == "+0.0167"
