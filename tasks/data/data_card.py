"""The data card of a snapshot: what each source delivered, what was rejected, and what counts as missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.core.display import markdown_table, one_line
from tasks.core.files import write_text
from tasks.data.results import Snapshot
from tasks.data.sources import Ingestion


def write_card(snapshot: Snapshot, ingestions: Mapping[str, Ingestion]) -> Path:
    """Write the card beside the snapshot, as Markdown; it is no part of the snapshot's digest."""
    lines = [
        f"# Data of {snapshot.case}",
        "",
        f"- as of: {snapshot.as_of.isoformat()}",
        f"- snapshot: {snapshot.digest}",
        "",
        "## Tables of the snapshot",
        "",
        *markdown_table(
            ["table", "rows", "quarantined"],
            [[name, f"{rows:,}", f"{snapshot.quarantined.get(name, 0):,}"] for name, rows in snapshot.rows.items()],
        ),
    ]
    for name, ingestion in ingestions.items():
        lines += [f"## Source {name}", "", *_source(ingestion)]
    return write_text(snapshot.card, "\n".join(lines))


def _source(ingestion: Ingestion) -> Iterator[str]:
    report, fetched = ingestion.report, ingestion.fetched
    yield f"- read from: {one_line(fetched.uri) if fetched else 'the request log'}"
    yield f"- records: {report.records:,} = {report.landed:,} read + {report.rejected:,} rejected"
    yield from (f"- rejected, for example: {one_line(row.sentence())}" for row in report.first)
    if report.ignored:
        yield f"- columns not declared: {', '.join(map(one_line, report.ignored))}"
    yield ""
    yield from markdown_table(["column", "type", "missing", "by word", "trimmed"], _columns(ingestion))
    if fetched:
        files = [[file.name, f"{file.size:,}", file.digest] for file in fetched.files]
        yield from markdown_table(["file", "bytes", "SHA-256"], files)


def _columns(ingestion: Ingestion) -> Iterator[Sequence[str]]:
    report = ingestion.report
    for name, column in report.columns.items():
        words = report.missing.get(name, {})
        count = sum(words.values())
        share = f"{count:,} ({count / report.landed:.1%})" if count else ""
        by_word = ", ".join(f"{word or 'empty'} {number:,}" for word, number in sorted(words.items()))
        yield name, column.type, share, by_word, f"{report.trimmed[name]:,}" if name in report.trimmed else ""
