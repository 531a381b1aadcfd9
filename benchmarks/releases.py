"""Memory and start of 1, 5 and 20 processes of one release, as forks of the fork server and each on its own.

    python -m benchmarks.releases [--quick] [--json FILE] [--case CASE]

It needs a champion of the case (default: flights); --quick starts one and two processes. Each process answers the
golden examples. Memory is the proportional set size (PSS) of all processes, so that shared pages count once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.table import Report, arguments

COUNTS, QUICK = (1, 5, 20), (1, 2)
TIMEOUT = 300.0  # seconds


def main() -> int:
    from services.serving.package import bento_folder
    from tasks.core.settings import apply_environment, settings
    from tasks.release.registry import load_champion

    options = arguments("Memory and start of release processes.", case="case with a champion; default: flights")
    apply_environment(settings())
    case = options.case or "flights"
    champion = load_champion(settings().tracking, settings().state, case)
    if champion is None:
        print(f"{case} has no champion yet: run `driftline run {case}` first.", file=sys.stderr)
        return 2
    bento = bento_folder(settings().state / "bentoml", champion.bento)
    report = Report(
        f"{case}: processes of a release", ["processes", "started as", "first ready (s)", "all ready (s)", "PSS (MB)"]
    )
    for count in QUICK if options.quick else COUNTS:
        for forked in (True, False):
            first, total, memory = measure(count, forked, bento, champion.folder)
            way = "fork" if forked else "own process"
            report.row(count, way, round(first, 1), round(total, 1), round(memory))
            report.figure(f"{way.replace(' ', '_')}_{count}_mb", memory)
    report.finish(["bentoml", "scikit-learn"], options.json)
    return 0


def measure(count: int, forked: bool, bento: Path, release: Path) -> tuple[float, float, float]:
    """Seconds until the first and until all processes are ready, and MB of all; the fork server's start is excluded."""
    from services.serving.process import wait_until_ready
    from services.serving.smoke import smoke
    from tasks.core.settings import ROOT
    from tasks.core.sockets import UNIX_SCHEME, private_temporary_folder

    with private_temporary_folder() as home, ExitStack() as stack:
        folder = Path(home)
        # the fork server listens beside the socket of supervisord
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "SUPERVISOR_SERVER_URL": f"unix://{folder}/supervisor.sock",
        }
        log = (folder / "log").open("wb")
        processes: list[subprocess.Popen[bytes]] = []

        def start(command: list[str], **variables: str) -> None:
            process = subprocess.Popen(command, cwd=ROOT, env={**environment, **variables}, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)

        if forked:
            start([sys.executable, "-m", "services.serving.fork_server"])
            while not (folder / "forks.sock").exists():
                time.sleep(0.05)
        begun, seconds = time.monotonic(), []
        alone = [] if forked else ["alone"]
        for number in range(count):
            (folder / str(number)).mkdir()
            command = [
                sys.executable,
                "-I",
                "-S",
                "services/serving/fork_client.py",
                str(bento),
                f"{folder}/{number}.sock",
            ]
            start([*command, *alone], BENTOML_HOME=f"{folder}/{number}", PYTHONSAFEPATH="1")
            wait_until_ready(
                f"{UNIX_SCHEME}{folder}/{number}.sock/readyz", "a release", folder / "log", TIMEOUT, lambda: True
            )
            seconds.append(time.monotonic() - begun)
        for number in range(count):
            smoke(release, f"{UNIX_SCHEME}{folder}/{number}.sock")
        return seconds[0], seconds[-1], sum(proportional_size(each.pid) for each in processes)


def proportional_size(pid: int) -> float:
    """MB of a process and its children, with shared pages divided among the processes that share them."""
    import psutil

    parent = psutil.Process(pid)
    return float(sum(each.memory_full_info().pss for each in (parent, *parent.children(recursive=True))) / 2**20)


if __name__ == "__main__":
    sys.exit(main())
