"""What a search has spent, kept on disk: a killed search goes on with what is left."""

from __future__ import annotations

import json
import math
import mmap
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tasks.core.errors import InputError
from tasks.search.config import Limit
from tasks.search.problem import Cost

BEAT = 0.1  # seconds between two records of the time: at most so much is not counted when the process is killed
CLOSING, CLOSING_SHARE = 2.0, 0.1  # left for choosing and reporting: seconds, but at most this share of the budget


@dataclass(frozen=True)
class Spent:
    """Time of the whole search, calls and money."""

    seconds: float = 0.0
    calls: int = 0
    money: float = 0.0


class Clock:
    """Seconds in a mapped file, which survive the process, while it is open."""

    def __init__(self, path: Path, started: float) -> None:
        """`started` is the moment of the monotonic clock from which on time counts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.write_bytes(struct.pack("d", 0.0))
        with path.open("r+b") as stream:
            self._file = mmap.mmap(stream.fileno(), 8)
        (self.before,) = struct.unpack("d", self._file[:])
        self.started = started
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    @property
    def seconds(self) -> float:
        return float(self.before) + time.monotonic() - self.started

    @property
    def is_open(self) -> bool:
        return not self._over.is_set()

    def close(self, seconds: float | None = None) -> None:
        """Write the time, or another one, for the last time."""
        if not self._over.is_set():
            self._over.set()
            self._beating.join()
            self._file[:] = struct.pack("d", self.seconds if seconds is None else seconds)
            self._file.close()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self._file[:] = struct.pack("d", self.seconds)


def start_clock(searches: Path) -> Clock:
    """The clock of the time before a search has a folder, from the start of this process: what was killed then counts.

    `searches` is the folder of a case's searches.
    """
    import psutil

    return Clock(searches / "preparing", time.monotonic() - (time.time() - psutil.Process().create_time()))


class Spending:
    """Counts the time while it is open, and the calls and money of each job, which are reserved when it starts.

    The time lies in a mapped file, which survives the process; a job without an end counts what it reserved.
    """

    def __init__(self, limit: Limit, folder: Path, preparing: Clock | None = None) -> None:
        """`preparing` has run until now, and its time counts."""
        folder.mkdir(parents=True, exist_ok=True)
        self.limit = limit
        self.trials = 0  # counted by the search
        self._ledger = folder / "spending.jsonl"
        self._jobs: dict[str, tuple[int, float]] = {}
        for line in self._ledger.read_text("utf-8").splitlines() if self._ledger.is_file() else []:
            self._count(json.loads(line))
        self._clock = Clock(folder / "seconds", time.monotonic() - (preparing.seconds if preparing else 0.0))
        if preparing:
            preparing.close(0.0)

    def __enter__(self) -> Spending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.close()

    @property
    def spent(self) -> Spent:
        calls, money = zip(*self._jobs.values(), strict=True) if self._jobs else ((), ())
        return Spent(self._clock.seconds, sum(calls), sum(money))

    @property
    def seconds_left(self) -> float:
        """Until the search must close; infinite without a limit of time."""
        if self.limit.seconds is None:
            return float("inf")
        closing = min(CLOSING, CLOSING_SHARE * self.limit.seconds)
        return self.limit.seconds - closing - self.spent.seconds

    def shortage(self, cost: Cost) -> str:
        """Why a job of this cost does not fit into what is left; empty when it does."""
        spent, limit = self.spent, self.limit
        if cost.seconds > self.seconds_left:
            return f"the budget of {limit.seconds:g} s is spent"
        if limit.calls is not None and spent.calls + cost.calls > limit.calls:
            return f"the budget of {limit.calls:,} calls is spent"
        if limit.money is not None and spent.money + cost.money > limit.money:
            return f"the budget of {limit.money:g} in money is spent"
        return ""

    def too_small(self, why: str, seconds: float) -> InputError:
        """The error of a budget that the case as it is does not fit into; it takes about so many seconds."""
        enough = 2 * (self.spent.seconds + seconds) + CLOSING
        return InputError(
            "The budget is too small for one trial.",
            where="--budget",
            found=f"{self.limit.text}, of which {self.spent.seconds:.0f} s went into preparing",
            allowed=f"enough for the case as it is and one other: {why}",
            todo=f"Name a larger budget, such as {10 * math.ceil(enough / 10)}s. What was measured stays.",
        )

    def reserve(self, job: str, cost: Cost) -> None:
        """Count a job that starts."""
        self._write({"job": job, "calls": cost.calls, "money": cost.money})

    def settle(self, job: str, calls: int, money: float) -> None:
        """Count a job that ended, by what it took."""
        self._write({"job": job, "calls": calls, "money": money})

    def _write(self, line: dict[str, float | str]) -> None:
        with self._ledger.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._count(line)

    def _count(self, line: dict[str, float | str]) -> None:
        self._jobs[str(line["job"])] = (int(line["calls"]), float(line["money"]))
