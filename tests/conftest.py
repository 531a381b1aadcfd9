"""What all tests share: a state folder and ports of their own, so that they run beside a running stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.processes import tune_gc

tune_gc()
ROOT = Path(__file__).resolve().parents[1]
EXTERNAL_SERVICES = (
    "PREFECT_URL",
    "PREFECT_DATABASE",
    "TRACKING_URL",
    "ARTIFACTS_URL",
    "DVC_REMOTE",
    "ONLINE_STORE",
    "VLLM_URL",
    "GATEWAY_STORE",
    "GATEWAY_LIMITS",
    "ALERTS",
)
LONGEST = ("end_to_end", "by_itself", "train", "gateway", "evaluate", "git", "monitor", "bento")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes one takes a room, unless a file says otherwise: what is shared there is made once.

    The longest begin first, so that none is left to the end: with `--no-loadscope-reorder`.
    """
    if not config.getoption("loadgroup", default=False):
        return

    def group(item: pytest.Item) -> str:
        marker = item.get_closest_marker("xdist_group")
        return marker.args[0] if marker else item.path.parent.name

    items.sort(key=lambda item: LONGEST.index(group(item)) if group(item) in LONGEST else len(LONGEST))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


@pytest.fixture(scope="session", autouse=True)
def own_world(tmp_path_factory) -> Iterator[Path]:
    """Keep every test away from the user's state, data, servers and remotes, whatever .env says."""
    from services.serving.process import free_port

    folder = tmp_path_factory.mktemp("world")
    values = {f"DRIFTLINE_{name}": "" for name in EXTERNAL_SERVICES}  # set, so that .env does not set them
    values |= {"DRIFTLINE_STATE": str(folder / "state"), "DRIFTLINE_DATA": str(folder / "data")}
    values |= {"PREFECT_SERVER_API_AUTH_STRING": "tests:a-password"}  # of the server that all test states share
    values |= {"DRIFTLINE_THREADS": "1"}  # the test processes share the cores
    values |= {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("DRIFTLINE_", "PREFECT_", "MLFLOW_TRACKING", "BENTOML_"))]:
            patch.delenv(name)
        for name, value in values.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="session")
def prefect_server(own_world) -> Iterator[str]:
    """A real Prefect server of this test process, on the port that DRIFTLINE_PREFECT_PORT names; gives its API."""
    from services.runtime.prefect_database import seed
    from services.serving.process import wait_until_ready
    from tasks.core.processes import with_parent_death_signal

    port = os.environ["DRIFTLINE_PREFECT_PORT"]
    home, log = own_world / "prefect", own_world / "prefect.log"
    home.mkdir()
    seed(home)
    silent = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "services.runtime.prefect_server", "127.0.0.1", port]
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent_death_signal(command),
            env={**os.environ, **silent, "PREFECT_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    api = f"http://127.0.0.1:{port}/api"
    try:
        wait_until_ready(f"{api}/health", "Prefect's server", log, 120, lambda: process.poll() is None)
        yield api
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
