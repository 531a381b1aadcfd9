"""The worker of the stack: python -m flows.deployed.worker PORT. It starts due runs, and restarts killed ones."""

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

RECOVERY_INTERVAL = 10.0  # seconds
POLL_INTERVAL = 2  # seconds


async def work() -> None:
    """Work until a signal ends it."""
    from prefect.workers.process import ProcessWorker

    from flows.deployed.compat import use_job_type
    from flows.deployed.deploy import POOL
    from flows.deployed.job import Job

    await asyncio.to_thread(_prepare_pool)
    worker = ProcessWorker(work_pool_name=POOL, name=socket.gethostname())
    use_job_type(worker, Job)
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
    # Prefect's exit handlers retry for up to half a minute when the server stops with this process
    os._exit(0)


def background() -> list[TaskLoop]:
    """The loops beside Prefect's worker, not yet started."""
    return [
        TaskLoop("recovery of runs", Recovery().step, interval=RECOVERY_INTERVAL),
        TaskLoop("alerts", _alert, interval=RECOVERY_INTERVAL),
    ]


async def _alert() -> None:
    """Alert about loops of this process that keep failing."""
    await asyncio.to_thread(loops.alert, _add_alert)


def _add_alert(loop: Loop) -> None:
    with closing(Store(settings())) as store:
        alert_loop_failure(store, "worker", loop)


class Recovery:
    """Recovers crashed runs; the worker survives an outage of the server."""

    def __init__(self) -> None:
        self._first = True

    async def step(self) -> None:
        from flows.deployed.recover import recover

        for line in await asyncio.to_thread(recover, self._first):
            print(line, flush=True)
        self._first = False


def _prepare_pool() -> None:
    """Wait for the server, which starts at the same time, and create the work pool."""
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

    config = settings()
    apply_environment(config)
    os.environ["PREFECT_API_URL"] = config.prefect_api
    os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = config.host
    os.environ["PREFECT_WORKER_WEBSERVER_PORT"] = str(port)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(POLL_INTERVAL)
    asyncio.run(work())


if __name__ == "__main__":
    main(int(sys.argv[1]))
