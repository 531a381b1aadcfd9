"""The worker of the stack: python -m flows.deployed.worker PORT. It starts what is due, and again what was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile

from tasks.foundation.children import ending_with_starter, look_for_garbage_seldom
from tasks.foundation.settings import ROOT
from tasks.serve.programs import FORKING

EVERY = 10.0  # seconds between two looks for what died
POLL = 2  # seconds between two looks for what is due


async def work() -> None:
    """Work until told to end."""
    from prefect.workers.process import ProcessWorker

    from flows.deployed.deploy import POOL
    from flows.deployed.job import job_by

    await asyncio.to_thread(_make_ready)
    with tempfile.TemporaryDirectory(prefix="driftline-worker-") as folder:
        place = os.path.join(folder, "forks.sock")
        worker = ProcessWorker(work_pool_name=POOL, name=socket.gethostname())
        worker.job_configuration = job_by(place if FORKING else None)
        working = asyncio.create_task(worker.start(with_healthcheck=True))
        others = [asyncio.create_task(_tend()), asyncio.create_task(_fork(place))]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            pass
        finally:
            for other in others:
                other.cancel()
    # the server may be gone, or go with us: what else would tell it something asks again for up to half a minute
    os._exit(0)


async def _fork(place: str) -> None:
    """Keep the fork server of runs going; it ends with us, and when it had nothing to do for long."""
    while FORKING:
        command = ending_with_starter([sys.executable, "-m", "flows.deployed.fork_server", place])
        server = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
        await server.wait()
        await asyncio.sleep(1)


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
    look_for_garbage_seldom()
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
