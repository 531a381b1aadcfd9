"""The process that measurements are forked from: it loads what they share once, and knows no thread.

    python -m tasks.search.fork_server DESCRIPTOR

`workers.py` starts it, and talks to it over the socket of that descriptor.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tasks.core.errors import DriftlineError
from tasks.search.measurement import write_measurement
from tasks.search.problem import Problem

POLL = 0.02  # seconds
REFUSED = 3  # exit status of a measurement whose configuration can't be measured


def main(descriptor: int) -> None:
    """Fork a child for each measurement, until the other side closes."""
    with Connection(descriptor) as connection:
        try:
            problem: Problem = pickle.loads(connection.recv_bytes())  # of the process that started this one
            problem.prepare()
        except (EOFError, OSError):
            return
        except DriftlineError as error:
            connection.send(("failed", error))
            return
        connection.send(("ready", None))
        _serve(connection, problem)


def _serve(connection: Connection, problem: Problem) -> None:
    children: dict[int, str] = {}
    try:
        while True:
            if connection.poll(POLL):
                verb, job, *rest = connection.recv()
                if verb == "kill":
                    _kill([pid for pid, name in children.items() if name == job])
                else:
                    pid = os.fork()
                    if pid == 0:
                        _run_child(connection, problem, *rest)
                    children[pid] = job
            for pid in [*children]:
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    connection.send(("ended", (children.pop(pid), os.waitstatus_to_exitcode(status), usage.ru_maxrss)))
    except (EOFError, OSError):  # the search ended, or was killed
        pass
    finally:
        _kill([*children])


def _kill(pids: list[int]) -> None:
    """End measurements with all processes that they started."""
    for pid in pids:
        for end in (os.killpg, os.kill):  # a child that has no group yet is killed alone
            try:
                end(pid, signal.SIGKILL)
                break
            except ProcessLookupError:
                continue


def _run_child(connection: Connection, problem: Problem, configuration: Any, rung: int, path: Path) -> None:
    """Measure, write the file, and end; an error is left beside it."""
    os.setsid()
    connection.close()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    status, started = 1, time.monotonic()
    try:
        scores = problem.measure(configuration, rung)
        write_measurement(path, scores, time.monotonic() - started)
        status = 0
    except DriftlineError as error:
        status = REFUSED
        error_path(path).write_text(f"{error.what} {error.found}".strip(), encoding="utf-8")
    except BaseException as error:  # noqa: BLE001 (a fork ends here, whatever happens)
        error_path(path).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """End this process when its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(os.getpid(), signal.SIGKILL)


def error_path(path: Path) -> Path:
    """Where a measurement that failed says why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_suffix(".error")


if __name__ == "__main__":
    main(int(sys.argv[1]))
