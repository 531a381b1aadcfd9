"""Attempts: one file beside each decision that was executed, so that the same evidence is acted on once.

The outcome in STATE/monitor/CASE/RELEASE12/AS_OF/attempt.json is `begun` until the attempt ends. A killed run leaves it
so, and the next run finishes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tasks.core.errors import Busy, GateFailed, InsufficientEvidence, Unavailable, WaitsForApproval
from tasks.core.files import write_text
from tasks.monitor.results import Attempt, Decision
from tasks.release.results import Release

FILE = "attempt.json"


def attempts(state: Path, case: str) -> list[Attempt]:
    """All attempts of a case, the oldest as-of first."""
    stored = [_read(path) for path in (state / "monitor" / case).glob(f"*/*/{FILE}")]
    return sorted(stored, key=lambda attempt: (attempt.decision.as_of, attempt.decision.digest))


def attempt_to_finish(case: str, as_of: datetime, champion: Release, state: Path) -> Attempt | None:
    """The newest attempt up to a moment, if it has not ended, or if its as-of is this moment and it was released.

    An attempt that another champion has overtaken is left as it is.
    """
    known = [attempt for attempt in attempts(state, case) if attempt.decision.as_of <= as_of]
    if not known:
        return None
    last, done = known[-1], known[-1].decision
    if last.outcome == "begun":
        led_to = champion.digest in (done.release, done.to) or champion.as_of == done.as_of
        return last if led_to else None
    return last if last.outcome == "released" and done.as_of == as_of else None


@contextmanager
def record_attempt(decision: Decision) -> Iterator[Callable[[str], None]]:
    """Record that a decision is executed, and its outcome; the block passes the digest of the release that it made.

    A killed process leaves the outcome `begun`, and so does waiting for a server, a disk or a person.
    """
    released: list[str] = []
    _write(Attempt(decision=decision, outcome="begun"))
    try:
        yield released.append
    except (Busy, Unavailable, WaitsForApproval):
        raise
    except InsufficientEvidence:
        _write(Attempt(decision=decision, outcome="undecided"))
        raise
    except GateFailed:
        _write(Attempt(decision=decision, outcome="rejected"))
        raise
    except Exception:  # of any kind: an hour later it would fail again
        _write(Attempt(decision=decision, outcome="failed"))
        raise
    _write(Attempt(decision=decision, outcome="released", release=released[-1]))


def _read(path: Path) -> Attempt:
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Attempt.model_validate({**stored, "decision": {**stored["decision"], "folder": path.parent}})


def _write(attempt: Attempt) -> None:
    text = attempt.model_dump_json(indent=1, exclude={"decision": {"folder"}})
    write_text(attempt.decision.folder / FILE, text + "\n")
