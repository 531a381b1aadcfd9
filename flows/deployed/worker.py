"""The worker of the stack: python -m flows.deployed.worker PORT. It starts what is due, and again what was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import closing

from services.store.alerts import alert_loop_failure
from services.store.database import Store
from tasks.core.loops import Loop, TaskLoop, loops
from tasks.core.processes import tune_gc
from tasks.core.settings import settings

EVERY = 10.0  # seconds between two looks for what died
POLL = 2  # seconds between two looks for what is due


async def work() -> None:
    """Work until told to end."""
    from prefect.workers.process import ProcessWorker

    from flows.deployed.deploy import POOL
    from flows.deployed.job import Job

    await asyncio.to_thread(_prepare_pool)
    worker = ProcessWorker(work_pool_name=POOL, name=socket.gethostname())
    worker.job_configuration = Job
    working = asyncio.create_task(worker.start(with_healthcheck=True))
    others = [loop.start() for loop in background()]
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


def background() -> list[TaskLoop]:
    """What runs beside Prefect's worker, not yet started."""
    return [TaskLoop("recovery of runs", Recovery().step, interval=EVERY), TaskLoop("alerts", _alert, interval=EVERY)]


async def _alert() -> None:
    """Have people know which loops of this process keep failing."""
    await asyncio.to_thread(loops.alert, _add_alert)


def _add_alert(loop: Loop) -> None:
    with closing(Store(settings())) as store:
        alert_loop_failure(store, "worker", loop)


class Recovery:
    """Looks for runs that died; the server may be gone for a while, and the worker goes on."""

    def __init__(self) -> None:
        self._first = True

    async def step(self) -> None:
        from flows.deployed.recover import recover

        for line in await asyncio.to_thread(recover, self._first):
            print(line, flush=True)
        self._first = False


def _prepare_pool() -> None:
    """Wait for the server, which starts beside us, and make the pool."""
    import time

    from prefect.client.orchestration import get_client

    from flows.deployed.deploy import ensure_work_pool
    from services.runtime.prefect_api import reach_prefect

    while not reach_prefect():
        time.sleep(0.5)
    with get_client(sync_client=True) as client:
        ensure_work_pool(client)


def main(port: int) -> None:
    tune_gc()
    from tasks.core.settings import apply_environment

    here = settings()
    apply_environment(here)
    os.environ["PREFECT_API_URL"] = here.prefect_api
    os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = here.host
    os.environ["PREFECT_WORKER_WEBSERVER_PORT"] = str(port)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(POLL)
    asyncio.run(work())


if __name__ == "__main__":
    main(int(sys.argv[1]))
