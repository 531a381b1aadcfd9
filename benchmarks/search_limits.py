"""Whether searches keep their budgets, reach what is made by hand, and promote nothing by chance."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.search_case import Workplace
from benchmarks.search_shuffled import promoted
from benchmarks.search_tables import write_case
from benchmarks.table import Report
from benchmarks.tables import TABLES as PLAIN

LANGUAGE = ("handbook", "assistant")
NEAR = 0.02  # of the best: a good arm
SEARCHES, KILLS = 10, 2
TOO_SMALL = 2  # exit status


def measure_language(report: Report, folder: Path, quick: bool) -> None:
    """The best arm of each language case against the case as it is, and the cheapest good one."""
    for case in LANGUAGE[: 1 if quick else None]:
        with Workplace(folder / case, case) as place:
            result = place.search(case, "2m" if quick else "20m")
        complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
        hand, best = complete[0], min(complete, key=lambda trial: trial["loss"])
        good = [trial for trial in complete if trial["loss"] <= best["loss"] + NEAR]
        cheapest = min(good, key=lambda trial: (trial["call_cost"], trial["call_seconds"]))
        note = f"best {best['label']}; cheapest good arm: {cheapest['label']}, {cheapest['call_seconds']:.2g} s a call"
        cells = (f"{1 - best['loss']:.4f}", "", "", f"{1 - hand['loss']:.4f}")
        report.row("language", case, result["metric"], *cells, result["wall"], note)
        report.figure(f"{case}_auto_minus_hand", hand["loss"] - best["loss"])
        report.figure(f"{case}_overrun", max(0.0, result["seconds"] - (120 if quick else 1200)))


def measure_budget(report: Report, folder: Path, quick: bool) -> None:
    """The worst overrun of searches that are killed at random and started again; their running time is summed."""
    chance, budget = random.Random(0), 30
    overruns = []
    for number in range(2 if quick else SEARCHES):
        with Workplace(folder / str(number)) as place:
            table, task = PLAIN["breast cancer"]()
            write_case(place, table, task)
            command = [sys.executable, "-m", "cli.main", "search", "table", "--budget", f"{budget}s", "--json"]
            running, kills = 0.0, 0
            while True:
                start = time.monotonic()
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
                )
                try:
                    process.communicate(timeout=chance.uniform(2, budget) if kills < KILLS else None)
                    running += time.monotonic() - start
                    break
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.communicate()
                    running, kills = running + time.monotonic() - start, kills + 1
            if process.returncode not in (0, TOO_SMALL):  # the kills may have left too little for one trial
                raise RuntimeError(f"search {number} ended with {process.returncode}")
            overruns.append(running - budget)
        report.row("budget", f"search {number}", "s over", f"{overruns[-1]:.1f}", "", "", "", running, f"{kills} kills")
    report.figure("budget_overrun_worst", max(overruns))


def measure_shuffled(report: Report, folder: Path, searches: int) -> None:
    """How many of so many searches on shuffled labels pass the gate against the case as it is."""
    count = 0
    for number in range(searches):
        count += promoted(number, folder / str(number), "8-trials")
        shutil.rmtree(folder / str(number))
    report.row("shuffled", f"{searches} searches", "promoted", count, "", "", "", "", "")
    report.figure("shuffled_searches", searches)
    report.figure("shuffled_promoted", count)
