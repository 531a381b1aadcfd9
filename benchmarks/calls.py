"""Where the processor time of a one-row prediction goes: by process, and by package within the gateway and a release.

    python -m benchmarks.calls [--quick] [--json FILE] [--py-spy FILE]

The champion of `flights` is served, so `driftline run flights` comes first. With py-spy, which is installed in an
environment of its own, the threads of both processes are sampled while they run; time in the system, such as sending,
counts for the line that asks for it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.load import processor_seconds, stack_processes
from benchmarks.serving import CASE, at_gateway, champion, golden, measure
from benchmarks.table import MB, Report, arguments
from tasks.core.settings import apply_environment, settings

REQUIRED = {"processor_ms_a_call_16": "<= 4"}
SHOWN = 8  # packages of a process
RATE = 400  # samples a second


def main() -> None:
    options = arguments("The processor time of a call, by process.", py_spy="path of py-spy, which samples both")
    apply_environment(settings())
    release = champion(CASE)
    if release is None:
        print(f"  no champion of {CASE}: driftline run {CASE}")
        return
    seconds, body = 3 if options.quick else 10, {"rows": [golden(release)["features"]]}
    report = Report(
        "Processor time of a call", ["process", "connections or package", "ms a call or %", "memory MB"], REQUIRED
    )
    with tempfile.TemporaryDirectory() as name, at_gateway(Path(name), release) as address:
        url, commands = f"{address}/v1/predict/{CASE}", stack_processes(Path(name))
        for connections in (1, 16):
            before = {pid: processor_seconds([pid]) for pid in commands}
            one = measure(url, body, connections, seconds)
            taken = {pid: 1000 * (processor_seconds([pid]) - before[pid]) for pid in commands}
            for role in sorted(set(map(role_of, commands.values()))):
                pids = [pid for pid, command in commands.items() if role_of(command) == role]
                calls = one["calls"] + one["warming"]
                report.row(role, connections, sum(taken[pid] for pid in pids) / calls, sum(map(memory, pids)))
            report.figure(f"processor_ms_a_call_{connections}", sum(taken.values()) / calls)
        for role in ("gateway", "release") if options.py_spy else ():
            busiest = max((pid for pid in commands if role_of(commands[pid]) == role), key=lambda pid: taken[pid])
            for package, share in sample(options.py_spy, busiest, url, body, seconds):
                report.row(role, package, share, "")
    report.finish(("bentoml", "uvicorn"), options.json)


def role_of(command: str) -> str:
    if "fork_server" in command or "fork_client" in command:
        return "release"
    return "supervisor" if "supervisord" in command else "gateway"


def memory(pid: int) -> float:
    """The proportional set size, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(text.split("\nPss:")[1].split()[0]) / MB


def sample(py_spy: str, pid: int, url: str, body: object, seconds: float) -> list[tuple[str, float]]:
    """The packages whose own lines run, in percent of the samples, of a process under load."""
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        command = [py_spy, "record", "-r", str(RATE), "-d", str(int(seconds)), "-f", "raw"]
        sampler = subprocess.Popen([*command, "-o", str(stacks), "-p", str(pid)], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        measure(url, body, 16, seconds)
        if sampler.wait(60):
            raise RuntimeError(f"{py_spy} ended with {sampler.returncode}.")
        counts: Counter[str] = Counter()
        for line in stacks.read_text(encoding="utf-8").splitlines():
            frames, _, count = line.rpartition(" ")
            counts[package_of(frames.rpartition(";")[2])] += int(count)
    return [(package, 100 * count / counts.total()) for package, count in counts.most_common(SHOWN)]


def package_of(frame: str) -> str:
    """The package of a frame such as `send (uvicorn/protocols/http.py:5)`; two levels of this project's own."""
    path = frame.rpartition("(")[2].partition(":")[0]
    parts = re.sub(r"^.*/(?=(services|tasks)/)", "", path).split("/")
    return ".".join(parts[:2]) if parts[0] in ("services", "tasks") else parts[0].removesuffix(".py")


if __name__ == "__main__":
    main()
