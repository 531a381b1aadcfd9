"""The monitoring report: one page for a person, the decision first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from tasks.core.files import write_text
from tasks.core.html_page import html_page, html_table
from tasks.monitor.config import Watch
from tasks.monitor.groups_table import draw_groups
from tasks.monitor.quality_chart import draw_quality
from tasks.monitor.results import DRIFT_PAGE, ColumnDrift, Decision, Signal, UpstreamDrift
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER, worse_by

STYLE = """
.decision { border-left: .35rem solid var(--fill); background: var(--soft); padding: .7rem 1.1rem; margin: 1rem 0;
  border-radius: .3rem; } .decision b { font-size: 1.25rem; } .decision.alert { border-color: var(--warn); }
.decision.retrain, .decision.rollback, .decision.recalibrate { border-color: var(--bad); }
.decision.ignore { border-color: var(--good); } iframe { width: 100%; height: 46rem; border: 1px solid var(--line); }
"""
MEANINGS = {
    "ignore": "nothing to do",
    "alert": "a person should look at it",
    "recalibrate": "the scores are calibrated anew",
    "retrain": "a challenger is trained",
    "rollback": "the previous champion takes over again",
}


def write_upstream_page(drift: UpstreamDrift, decision: Decision) -> Path:
    """Write report.html of a case of which only the model behind the address is measured."""
    rows = [[escape(text) for text in (each.question, each.then, each.now)] for each in drift.changed]
    table = html_table(["question", "at the release", "now"], rows, texts=(0, 1, 2)) if rows else ""
    return write_text(
        decision.report, html_page(f"Monitoring of {decision.case}", _decision(decision), table, style=STYLE)
    )


def write_page(signal: Signal, decision: Decision, config: Watch) -> Path:
    """Write report.html beside the decision; the same signal and decision give the same page."""
    parts = [
        f'<p class="dim">Release {signal.release[:12]}, rows from {_moment(signal.start)} to {_moment(signal.end)} '
        f"UTC: {_count(signal)}.</p>",
        _decision(decision),
        *_performance(signal, config),
        *_estimate(signal, config),
        *draw_groups(signal),
        *_reference_free(signal),
        *_drift(signal),
        "<h2>The distributions</h2>",
        f'<p><a href="{DRIFT_PAGE}">Evidently\'s report</a> shows each column then and now.</p>',
        f'<details><summary>Show it on this page</summary><iframe loading="lazy" src="{DRIFT_PAGE}" '
        'title="Evidently\'s report"></iframe></details>',
        *draw_quality(signal.quality),
        *_not_computed(signal),
        f"<p><code>signal {signal.digest[:12]}, evidence {signal.evidence[:12]}, decision {decision.digest[:12]}"
        "</code></p>",
    ]
    return write_text(decision.report, html_page(f"Monitoring of {signal.case}", *parts, style=STYLE))


def _count(signal: Signal) -> str:
    origins = ", ".join(f"{count:,} from {escape(name)}" for name, count in sorted(signal.origins.items()))
    rows = f"{signal.rows:,} predictions{f' ({origins})' if origins else ''}"
    return f"{rows}, {signal.rows_with_outcome:,} of them with an outcome"


def _decision(decision: Decision) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons)
    return (
        f'<div class="decision {decision.action}"><b>{decision.action}</b> '
        f'<span class="dim">{MEANINGS[decision.action]}</span><ul>{reasons}</ul></div>'
    )


def _performance(signal: Signal, config: Watch) -> list[str]:
    """Quality now beside the hold-out's, with intervals; the watched metric first."""
    title = "<h2>Quality now, against the hold-out</h2>"
    if not signal.metrics:
        return [title, "<p>No outcome has arrived yet, so quality is not known.</p>"]
    watched = config.retrain.metric
    names = sorted({*signal.metrics, *signal.reference}, key=lambda name: (name != watched, name))
    rows = []
    for name in names:
        now, then = signal.metrics.get(name), signal.reference.get(name)
        label = f"<b>{escape(name)}</b> (watched)" if name == watched else escape(name)
        cells = [
            label,
            _interval(now, signal.intervals.get(name)),
            _interval(then, signal.reference_intervals.get(name)),
            _number(signal.expected.get(name)),
            _change(name, now, then),
        ]
        rows.append([*cells, "higher" if name in HIGHER_IS_BETTER else "lower"])
    if signal.bias is not None:
        what = "bias" if signal.bias_class is None else f"bias of {signal.bias_class}"
        rows.append([escape(what), f"{signal.bias:+.3f}", _signed(signal.bias_then), "", "", "near 0"])
    head = ["metric", "now (95 % interval)", "hold-out (95 % interval)", "expected of these rows", "change", "better"]
    about = f"{signal.rows_with_outcome:,} rows now, {signal.reference_rows:,} in the hold-out."
    if signal.expected:
        about += " Expected: what the scores let expect of these very rows; harder rows are no fault of the model."
    return [title, html_table(head, rows), f'<p class="dim">{about}</p>', *_parts(signal, watched)]


def _parts(signal: Signal, metric: str) -> list[str]:
    if len(signal.parts) < 2:
        return []
    rows = [
        [f"{_moment(part.start)} to {_moment(part.end)}", f"{part.rows:,}", _number(part.value), _signed(part.bias)]
        for part in signal.parts
    ]
    table = html_table(["part of the window", "rows", metric, "bias"], rows)
    return [f"<details><summary>By part of the window</summary>{table}</details>"]


def _estimate(signal: Signal, config: Watch) -> list[str]:
    """What is estimated of the rows whose outcome is not known yet."""
    if not signal.estimated:
        return []
    watched = config.retrain.metric
    names = sorted(signal.estimated, key=lambda name: (name != watched, name))
    rows = []
    for name in names:
        now, then = signal.estimated[name], signal.reference.get(name)
        rows.append([escape(name), _number(now), _number(then), _change(name, now, then)])
    return [
        f"<h2>Estimated quality of {signal.estimated_rows:,} rows without an outcome</h2>",
        html_table(["metric", "estimate", "hold-out", "change"], rows),
        '<p class="dim">If a score still means what it meant on the hold-out; an estimate alerts, and never retrains.'
        "</p>",
    ]


def _reference_free(signal: Signal) -> list[str]:
    """Metrics of all answers, which need no right ones."""
    if not signal.reference_free:
        return []
    rows = [
        [escape(name), _number(now), _number(signal.reference_free_then.get(name))]
        for name, now in sorted(signal.reference_free.items())
    ]
    return ["<h2>All answers, without right ones</h2>", html_table(["metric", "now", "evaluation"], rows)]


def _drift(signal: Signal) -> list[str]:
    """Columns, the worst first, and the predictions."""
    parts = ["<h2>What drifted, the worst first</h2>"]
    compared = sorted(signal.columns, key=_badness)
    drifted = [column for column in compared if column.drifted]
    shown = drifted or [column for column in compared if column.drifted is not None][:3]
    parts.append(f"<p>{len(drifted):,} of {len(signal.columns):,} columns drifted.</p>")
    facts = [
        (signal.prediction_drift, "Distance of the predictions' distribution from the hold-out's"),
        (signal.importance_shift, "Shift of feature importance (0 to 2)"),
        (signal.message_auc, "AUC of a classifier between these messages and those of the evaluation (.5: alike)"),
    ]
    items = "".join(f"<li>{name}: {value:.3f}</li>" for value, name in facts if value is not None)
    parts.append(f"<ul>{items}</ul>" if items else "")
    if shown:
        parts.append(_columns(shown))
    if rest := [column for column in compared if column not in shown]:
        parts.append(f"<details><summary>{len(rest):,} more columns</summary>{_columns(rest)}</details>")
    return parts


def _badness(column: ColumnDrift) -> tuple[bool, float, str]:
    far = max(column.distance or 0.0, abs(column.missing_now - column.missing_then), (column.unseen_now or 0.0), 0.0)
    return not column.drifted, -far, column.column


def _columns(columns: Sequence[ColumnDrift]) -> str:
    head = ["column", "drifted", "distance", "p", "missing then", "missing now", "unseen then", "unseen now", "note"]
    verdicts = {True: '<span class="bad">yes</span>', False: "no", None: "not known"}
    rows = [
        [
            escape(column.column),
            verdicts[column.drifted],
            _number(column.distance),
            _number(column.p_value),
            f"{column.missing_then:.1%}",
            f"{column.missing_now:.1%}",
            _share(column.unseen_then),
            _share(column.unseen_now),
            escape(column.note),
        ]
        for column in columns
    ]
    filled = [number for number in range(len(head)) if any(row[number] for row in rows)]
    texts = [place for place, number in enumerate(filled) if number == len(head) - 1]
    return html_table([head[n] for n in filled], [[row[n] for n in filled] for row in rows], texts=texts)


def _not_computed(signal: Signal) -> list[str]:
    if not signal.not_computed:
        return []
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in signal.not_computed)
    return ["<h2>What could not be measured</h2>", f"<ul>{items}</ul>"]


def _change(metric: str, now: float | None, then: float | None) -> str:
    if now is None or then is None:
        return ""
    worse = worse_by(metric, now, then)
    return f"{abs(worse):.3f} {'worse' if worse > 0 else 'better'}" if worse else "none"


def _interval(value: float | None, bounds: tuple[float, float] | None) -> str:
    if value is None or bounds is None:
        return _number(value)
    return f"{_number(value)} ({_number(bounds[0])} to {_number(bounds[1])})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
