"""The worker of the stack: python -m flows.deployed.worker PORT. It starts what is due, and again what was killed."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
from contextlib import closing

from tasks.foundation.children import ending_with_starter, look_for_garbage_seldom
from tasks.foundation.errors import DriftlineError
from tasks.foundation.files import temporary_folder
from tasks.foundation.loops import Loop, TaskLoop, loops
from tasks.foundation.settings import ROOT, settings
from tasks.ledger.alerts import alert_about
from tasks.ledger.store import Store
from tasks.serve.programs import FORKING

EVERY = 10.0  # seconds between two looks for what died
POLL = 2  # seconds between two looks for what is due


async def work() -> None:
    """Work until told to end."""
    from prefect.workers.process import ProcessWorker

    from flows.deployed.deploy import POOL
    from flows.deployed.job import job_by

    await asyncio.to_thread(_make_ready)
    with temporary_folder("worker") as folder:
        place = os.path.join(folder, "forks.sock")
        worker = ProcessWorker(work_pool_name=POOL, name=socket.gethostname())
        worker.job_configuration = job_by(place if FORKING else None)
        working = asyncio.create_task(worker.start(with_healthcheck=True))
        others = [loop.start() for loop in background(place)]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            pass
        finally:
            for other in others:
                other.task.cancel()
    # the server may be gone, or go with us: what else would tell it something asks again for up to half a minute
    os._exit(0)


def background(place: str) -> list[TaskLoop]:
    """What runs beside Prefect's worker, not yet started; `place` is the socket of the fork server."""
    beside = [TaskLoop("recovery of runs", Recovery().step, every=EVERY), TaskLoop("alerts", _alert, every=EVERY)]
    if FORKING:
        beside.append(TaskLoop("fork server", functools.partial(_fork, place), every=1.0))
    return beside


async def _fork(place: str) -> None:
    """Run the fork server of runs; it ends with us, and when it had nothing to do for long."""
    command = ending_with_starter([sys.executable, "-m", "flows.deployed.fork_server", place])
    server = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    if code := await server.wait():
        raise DriftlineError(f"The fork server of runs ended with {code}.")


async def _alert() -> None:
    """Have people know which loops of this process keep failing."""
    await asyncio.to_thread(loops.alert, _add_alert)


def _add_alert(loop: Loop) -> None:
    with closing(Store(settings())) as store:
        alert_about(store, "worker", loop)


class Recovery:
    """Looks for runs that died; the server may be gone for a while, and the worker goes on."""

    def __init__(self) -> None:
        self._first = True

    async def step(self) -> None:
        from flows.deployed.recover import recover

        for line in await asyncio.to_thread(recover, self._first):
            print(line, flush=True)
        self._first = False


def _make_ready() -> None:
    """Wait for the server, which starts beside us, and make the pool."""
    import time

    from prefect.client.orchestration import get_client

    from flows.deployed.deploy import make_pool
    from flows.terminal import reach_prefect

    while not reach_prefect():
        time.sleep(0.5)
    with get_client(sync_client=True) as client:
        make_pool(client)


def main(port: int) -> None:
    look_for_garbage_seldom()
    from tasks.foundation.settings import apply_environment

    here = settings()
    apply_environment(here)
    os.environ["PREFECT_API_URL"] = here.prefect_api
    os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = here.host
    os.environ["PREFECT_WORKER_WEBSERVER_PORT"] = str(port)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(POLL)
    asyncio.run(work())


if __name__ == "__main__":
    main(int(sys.argv[1]))
