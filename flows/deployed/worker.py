"""The worker of the stack: python -m flows.deployed.worker PORT. It starts what is due, and again what was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

EVERY = 10.0  # seconds between two looks for what died
POLL = 2  # seconds between two looks for what is due


async def work() -> None:
    """Work until told to end."""
    from prefect.workers.process import ProcessWorker

    from flows.deployed.deploy import POOL

    await asyncio.to_thread(_make_ready)
    worker = ProcessWorker(work_pool_name=POOL, name=socket.gethostname())
    working = asyncio.create_task(worker.start(with_healthcheck=True))
    tending = asyncio.create_task(_tend())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        pass
    finally:
        tending.cancel()


async def _tend() -> None:
    from flows.deployed.recover import recover

    first = True
    while True:
        try:
            for line in await asyncio.to_thread(recover, first):
                print(line, flush=True)
            first = False
        except Exception as error:  # noqa: BLE001 (the server may be gone for a while; the worker goes on)
            print(f"could not look for what died: {error!r}", flush=True)
        await asyncio.sleep(EVERY)


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
    from tasks.foundation.settings import apply_environment, settings

    here = settings()
    apply_environment(here)
    os.environ["PREFECT_API_URL"] = here.prefect_api
    os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = here.host
    os.environ["PREFECT_WORKER_WEBSERVER_PORT"] = str(port)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(POLL)
    asyncio.run(work())


if __name__ == "__main__":
    main(int(sys.argv[1]))
