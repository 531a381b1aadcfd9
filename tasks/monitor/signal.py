"""The signal of a window, for every kind of case: how it is stored and found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.core.progress import mark_cached
from tasks.data.results import Snapshot
from tasks.monitor.config import Watch
from tasks.monitor.drift import decide_drift
from tasks.monitor.results import DRIFT_NUMBERS, DRIFT_PAGE, REPORT_PAGE, Signal, UpstreamDrift
from tasks.release.results import Release
from tasks.statistics.permutation import benjamini_hochberg

if TYPE_CHECKING:
    import pandas as pd

SEED = 0


@dataclass(frozen=True)
class Window:
    """The predictions of a release for start <= event_timestamp < end, with outcomes as of a moment."""

    case: str
    release: str  # digest, in full
    as_of: datetime
    start: datetime
    end: datetime

    @classmethod
    def of(cls, release: Release, start: datetime, as_of: datetime) -> Window:
        """The window from a moment to the as-of."""
        return cls(release.case, release.digest, as_of, start, as_of)

    def parts(self, count: int) -> list[tuple[datetime, datetime]]:
        """Parts of equal length, from start to end."""
        borders = [self.start + i * (self.end - self.start) / count for i in range(count)] + [self.end]
        return list(pairwise(borders))

    def folder(self, state: Path) -> Path:
        return signal_folder(state, self.case, self.release, self.as_of)

    def inputs(self, module: str, others: Sequence[Any]) -> str:
        """Digest over the window, all other inputs of the signal, and the code of the module that measures it."""
        moments = [moment.astimezone(UTC).isoformat() for moment in (self.as_of, self.start, self.end)]
        return cache_key(module, [self.release, moments, list(others)])


@dataclass(frozen=True)
class WindowData:
    """The examples or messages of a window, with the outcomes known by now, and the snapshot that they are from.

    upstream: what was measured of the model behind an address. scorers: code of the case's own, by name.
    """

    path: Path  # Parquet
    snapshot: Snapshot | None = None
    upstream: UpstreamDrift | None = None
    scorers: Mapping[str, str] = field(default_factory=dict)


def store_signal(
    window: Window,
    folder: Path,
    measured: Mapping[str, Any],
    known: pd.DataFrame,
    p_values: Mapping[str, float | None],
    config: Watch,
) -> Signal:
    """Write the signal of a window beside its report.

    All its p-values, also those of the columns, are adjusted together, which holds the rate of
    false alarms for the window as a whole.
    """
    rate, columns = config.alert.false_alarms, measured["columns"]
    of_columns = {f"column {column.column}": column.p_value for column in columns}
    adjusted = benjamini_hochberg({**of_columns, **p_values})
    decided = tuple(decide_drift(column, adjusted.get(f"column {column.column}"), rate) for column in columns)
    compared = [column.drifted for column in decided if column.drifted is not None]
    missing = [*measured["not_computed"]]
    missing += [
        f"Drift of {column.column} was not computed: {column.note or 'the distance is not finite'}."
        for column in decided
        if column.drifted is None
    ]
    if not compared:
        missing.append("The share of drifted columns was not computed: no column could be compared.")
    fields = {
        **measured,
        "columns": decided,
        "drifted_share": round(sum(compared) / len(compared), 6) if compared else None,
        "p_values": {name: adjusted[name] for name in p_values if name in adjusted},
        "not_computed": tuple(missing),
        "evidence": digest_of([window.release, fingerprint(known)]),
    }
    about = {name: getattr(window, name) for name in ("case", "release", "as_of", "start", "end")}
    signal = Signal(**about, **fields, digest="", folder=folder)
    digest = digest_of(signal.model_dump(mode="json", exclude={"digest", "folder"}))
    signal = signal.model_copy(update={"digest": digest})
    write_text(folder / "signal.json", signal.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    return signal


def signal_folder(state: Path, case: str, release_digest: str, as_of: datetime) -> Path:
    """The folder of a signal, its report and its decision."""
    return state / "monitor" / case / release_digest[:12] / f"{as_of.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


def read_signal(folder: Path) -> Signal:
    """Read the signal that a folder holds."""
    return Signal(**json.loads((folder / "signal.json").read_text(encoding="utf-8")), folder=folder)


def find_signal(folder: Path, inputs: str) -> Signal | None:
    """The stored signal of the same inputs; that of other inputs is removed, as it would not fit a newer report."""
    if all((folder / name).is_file() for name in ("signal.json", DRIFT_PAGE, DRIFT_NUMBERS)):
        stored = json.loads((folder / "signal.json").read_text(encoding="utf-8"))
        if stored.get("inputs") == inputs:  # checked first: an earlier version wrote other fields
            mark_cached()
            return Signal(**stored, folder=folder)
    for name in ("signal.json", "decision.json", REPORT_PAGE):
        (folder / name).unlink(missing_ok=True)
    return None


def fingerprint(rows: pd.DataFrame) -> str:
    """SHA-256 over the values of a frame, hex."""
    import pandas as pd

    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def sample(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """A sample of the rows in their order; equal rows give equal samples."""
    return rows if len(rows) <= count else rows.sample(count, random_state=SEED).sort_index()
