"""What the serving benchmark compares the gateway with: other servers of a model, other gateways, an earlier commit."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from services.serving.process import free_port, wait_until_ready
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT, settings
from tasks.release.results import Release

ALONE = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000"}
# by hand: `pip install` may resolve to a version with stolen credentials' code
LITELLM = "litellm[proxy]!=1.82.7,!=1.82.8"
LITELLM_KEY = f"sk-{secrets.token_hex(32)}"  # it refuses to start without one

FASTAPI = """
import sys, pandas as pd, uvicorn
from fastapi import FastAPI, Request
from skops import io
model = io.load(sys.argv[1], trusted=io.get_untrusted_types(file=sys.argv[1]))
app = FastAPI()

@app.get("/ping")
async def ping():
    return {}

@app.post("/predict")
async def predict(request: Request):
    return model.predict_proba(pd.DataFrame((await request.json())["rows"]))[:, 1].tolist()

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""

BENTOML = """
import os
import bentoml, pandas as pd
from skops import io

@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Peer:
    def __init__(self):
        path = os.environ["PEER_MODEL"]
        self.model = io.load(path, trusted=io.get_untrusted_types(file=path))

    @bentoml.api
    def predict(self, rows: list[dict]) -> list[float]:
        return self.model.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
"""

EARLIER = """
import pathlib, sys
from benchmarks.serving import apply_environment, at_gateway, champion, settings
apply_environment(settings())
with at_gateway(pathlib.Path(sys.argv[1]), champion(sys.argv[2])) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def fastapi(folder: Path, release: Release) -> contextlib.AbstractContextManager[str]:
    """A bare FastAPI around the pipeline."""
    port = free_port()
    return running([sys.executable, "-c", FASTAPI, str(release.folder / "model.skops"), str(port)], port, folder)


def mlflow(folder: Path, release: Release) -> contextlib.AbstractContextManager[str]:
    """`mlflow models serve` of the registered version."""
    port, model = free_port(), f"models:/{release.case}/{release.version}"
    command = [sys.executable, *f"-m mlflow models serve -m {model} --env-manager local -p {port}".split()]
    return running(command, port, folder, {"MLFLOW_TRACKING_URI": settings().mlflow_uri})


def bentoml(folder: Path, release: Release) -> contextlib.AbstractContextManager[str]:
    """A BentoML service as its documentation shows it, of the same pipeline."""
    port = free_port()
    (folder / "peer.py").write_text(BENTOML, encoding="utf-8")
    command = [sys.executable, "-m", "bentoml", "serve", "peer:Peer", "--port", str(port), "--host", "127.0.0.1"]
    environment = {"PEER_MODEL": str(release.folder / "model.skops"), "BENTOML_HOME": str(folder / "bentoml-home")}
    return running(command, port, folder, environment, ready="/readyz")


def litellm(folder: Path, environment: Path, engine: str, key: str) -> contextlib.AbstractContextManager[str]:
    """LiteLLM's proxy, of a virtual environment that has it, before an engine; its model is `chat`."""
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: chat\n    litellm_params:\n      model: openai/chat\n"
        f"      api_base: {engine}/v1\n      api_key: {key}\n",
        encoding="utf-8",
    )
    command = [str(environment / "bin" / "litellm"), "--config", str(config), "--port", str(port)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": LITELLM_KEY, "PYTHONPATH": ""}
    return running([*command, "--host", "127.0.0.1"], port, folder, offline, ready="/health/liveliness")


@contextlib.contextmanager
def earlier(folder: Path, checkout: Path, case: str) -> Iterator[str]:
    """The gateway of an earlier commit with its own champion, in a checkout that has run the case."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    process = subprocess.Popen(
        with_parent_death_signal([sys.executable, "-c", EARLIER, str(folder), case]),
        cwd=checkout,
        env={**environment, **ALONE, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        lines = (line.strip() for line in process.stdout)
        address = next((line for line in lines if line.startswith("http://")), "")
        if not address:
            raise RuntimeError(f"The gateway of {checkout} did not start: run {case} there first.")
        yield address
    finally:
        process.stdin.close()
        process.wait(60)


@contextlib.contextmanager
def running(
    command: list[str], port: int, folder: Path, more: Mapping[str, str] | None = None, ready: str = "/ping"
) -> Iterator[str]:
    """A server that runs while the block does."""
    log = folder / f"{port}.log"
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where MLflow looks for uvicorn
    environment = {**os.environ, **ALONE, "PATH": path, "PYTHONPATH": str(ROOT), **(more or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent_death_signal(command),
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{address}{ready}", command[2], log, 180, lambda: process.poll() is None)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # and what it started
        process.wait(20)
