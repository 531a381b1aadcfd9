"""A signal of a window: what every kind of case keeps of what it measured, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.core.progress import mark_cached
from tasks.monitor.config import Watch
from tasks.monitor.drift import judge_column
from tasks.monitor.results import Signal
from tasks.statistics.permutation import benjamini_hochberg

if TYPE_CHECKING:
    import pandas as pd

SEED = 0


@dataclass(frozen=True)
class Window:
    """What is judged: what a release predicted for start <= event_timestamp < end, as known as of a moment."""

    case: str
    release: str  # digest, in full
    as_of: datetime
    start: datetime
    end: datetime

    def parts(self, many: int) -> list[tuple[datetime, datetime]]:
        """So many parts of equal length, from start to end."""
        borders = [self.start + i * (self.end - self.start) / many for i in range(many)] + [self.end]
        return list(pairwise(borders))

    def folder(self, state: Path) -> Path:
        return signal_folder(state, self.case, self.release, self.as_of)

    def inputs(self, module: str, of: Sequence[Any]) -> str:
        """Digest over the window, all else that a signal is measured from, and the code of the module that does it."""
        moments = [moment.astimezone(UTC).isoformat() for moment in (self.as_of, self.start, self.end)]
        return cache_key(module, [self.release, moments, list(of)])


def store_signal(
    window: Window,
    folder: Path,
    measured: Mapping[str, Any],
    known: pd.DataFrame,
    chances: Mapping[str, float | None],
    config: Watch,
) -> Signal:
    """Write what was measured of a window beside its report, as a signal.

    All its p-values, those of columns with `chances`, are adjusted together, which holds the rate of
    false alarms for the window as a whole.
    """
    rate, columns = config.alert.false_alarms, measured["columns"]
    of_columns = {f"column {column.column}": column.chance for column in columns}
    q = benjamini_hochberg({**of_columns, **chances})
    judged = tuple(judge_column(column, q.get(f"column {column.column}"), rate) for column in columns)
    told = [column.drifted for column in judged if column.drifted is not None]
    missing = [*measured["not_computed"]]
    missing += [
        f"Drift of {column.column} was not computed: {column.note or 'the distance is not finite'}."
        for column in judged
        if column.drifted is None
    ]
    if not told:
        missing.append("The share of drifted columns was not computed: no column could be compared.")
    found = {
        **measured,
        "columns": judged,
        "drifted_share": round(sum(told) / len(told), 6) if told else None,
        "chances": {name: q[name] for name in chances if name in q},
        "not_computed": tuple(missing),
        "evidence": digest_of([window.release, fingerprint(known)]),
    }
    about = {name: getattr(window, name) for name in ("case", "release", "as_of", "start", "end")}
    signal = Signal(**about, **found, digest="", folder=folder)
    digest = digest_of(signal.model_dump(mode="json", exclude={"digest", "folder"}))
    signal = signal.model_copy(update={"digest": digest})
    write_text(folder / "signal.json", signal.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return signal


def signal_folder(state: Path, case: str, release_digest: str, as_of: datetime) -> Path:
    """Where a signal, its report and its decision lie for good."""
    return state / "monitor" / case / release_digest[:12] / f"{as_of.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


def read_signal(folder: Path) -> Signal:
    """Read the signal that a folder holds."""
    return Signal(**json.loads((folder / "signal.json").read_text(encoding="utf-8")), folder=folder)


def find_signal(folder: Path, inputs: str) -> Signal | None:
    """The signal of the same inputs; that of other ones is removed, as it must not stand beside a newer report."""
    if all((folder / name).is_file() for name in ("signal.json", "report.html", "report.json")):
        told = json.loads((folder / "signal.json").read_text(encoding="utf-8"))
        if told.get("inputs") == inputs:  # looked at first: an earlier version wrote other fields
            mark_cached()
            return Signal(**told, folder=folder)
    for name in ("signal.json", "decision.json"):
        (folder / name).unlink(missing_ok=True)
    return None


def fingerprint(rows: pd.DataFrame) -> str:
    """SHA-256 over the values of a frame, hex."""
    import pandas as pd

    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def sample(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The same sample of the same rows each time, in their order."""
    return rows if len(rows) <= count else rows.sample(count, random_state=SEED).sort_index()
