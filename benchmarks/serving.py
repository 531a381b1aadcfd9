"""One-row predictions and chat through the gateway, against other servers of the same model, and the bare engine.

    python -m benchmarks.serving [--quick] [--json FILE]

The champions of the state folder are served: `driftline run flights`, and `driftline run assistant` for chat, come
first. Each server runs alone with its client on the same cores, one thread each. Every answer's prediction is compared
with the pipeline's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.generate import SUBJECTS, hear, together
from benchmarks.table import Report, arguments, in_own_process
from services.serving.process import free_port, wait_until_ready
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT, Settings, apply_environment, settings
from tasks.release.results import Release

CASE, CHAT = "flights", "assistant"
CONNECTIONS = (1, 16, 64)
REQUIRED = {
    "rps_over_mlflow_16": ">= 3",
    "rps_over_fastapi_16": ">= 1.5",
    "p99_over_mlflow_16": "< 1",
    "p99_over_fastapi_16": "< 1",
    "p90_over_p50_64": "<= 3",
    "chat_tokens_over_engine_1": ">= 0.95",
    "chat_tokens_over_engine_8": ">= 0.95",
    "chat_added_ttft_ms": "<= 10",
    "chat_cached_ms": "<= 5",
    "predictions_that_differ": "0",
}
ALONE = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000"}
LENGTH = 64  # tokens of an answer

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


def main() -> None:
    options = arguments("The gateway against other servers of the same model, and the bare engine.")
    if options.one:
        print(json.dumps(asyncio.run(load(**json.loads(options.one)))))
        return
    apply_environment(settings())
    report = Report("Serving", ["what", "server", "connections", "per second", "p50 ms", "p90 ms", "p99 ms"], REQUIRED)
    seconds = 4 if options.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        table(report, Path(folder), seconds)
    with tempfile.TemporaryDirectory() as folder:
        chat(report, Path(folder), 2 if options.quick else 8)
    report.finish(("bentoml", "fastapi", "mlflow", "uvicorn", "xllamacpp"), options.json)


def table(report: Report, folder: Path, seconds: float) -> None:
    """Requests a second of one row, at the gateway and at the two peers."""
    release = champion(CASE)
    if release is None:
        print(f"  no champion of {CASE}: driftline run {CASE}")
        return
    examples = json.loads((release.folder / "golden.json").read_text(encoding="utf-8"))
    row = examples[0]["features"]
    split = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
    servers: dict[str, tuple[Any, str, Any, Callable[[Any], float]]] = {
        "gateway": (at_gateway(folder, release), f"/v1/predict/{CASE}", {"rows": [row]}, gateway_score),
        "fastapi": (fastapi(folder, release), "/predict", {"rows": [row]}, lambda response: response[0]),
        "mlflow": (mlflow(folder, release), "/invocations", split, lambda response: response["predictions"][0][1]),
    }
    found: dict[tuple[str, int], dict[str, float]] = {}
    different = 0
    for name, (serving, path, body, predicted) in servers.items():
        with serving as address:
            response = json.loads(_post(address + path, body))
            different += abs(predicted(response) - examples[0]["prediction"]) > 1e-12
            for connections in CONNECTIONS:
                request = {"url": address + path, "body": body, "connections": connections, "seconds": seconds}
                in_own_process("benchmarks.serving", **request | {"seconds": 1})
                found[name, connections] = one = in_own_process("benchmarks.serving", **request)
                report.row("one row", name, connections, one["rps"], one["p50"], one["p90"], one["p99"])
    for peer in ("mlflow", "fastapi"):
        for connections in CONNECTIONS:
            gateway, reference = found["gateway", connections], found[peer, connections]
            report.figure(f"rps_over_{peer}_{connections}", gateway["rps"] / reference["rps"])
            report.figure(f"p99_over_{peer}_{connections}", gateway["p99"] / reference["p99"])
    most = found["gateway", max(CONNECTIONS)]
    report.figure(f"p90_over_p50_{max(CONNECTIONS)}", most["p90"] / most["p50"])
    report.figure("predictions_that_differ", different)


def chat(report: Report, folder: Path, rounds: int) -> None:
    """Tokens a second and time to the first one: the engine alone, then through the gateway, in turns."""
    release = champion(CHAT)
    if release is None:
        print(f"  no champion of {CHAT}: driftline run {CHAT}")
        return
    from tasks.language.engine import start_engine
    from tasks.language.prompts import released_prompt
    from tasks.release.seal import read_manifest

    sealed = read_manifest(release.folder)["sealed"]
    prompt = released_prompt(release.folder)  # both read the same prompt
    slots, context = sealed["serving"]["slots"], sealed["context"]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with (
        start_engine(release.model, threads=settings().threads, slots=slots, context=context) as bare,
        at_gateway(folder, release) as gateway,
    ):
        servers: dict[str, tuple[str, str, str | None]] = {
            "engine": (bare.address, bare.key, None),
            "gateway": (gateway, "", CHAT),
        }
        for number in range(rounds + 1):
            for concurrent in (1, 8):
                order = list(servers) if number % 2 else list(servers)[::-1]
                for name in order:
                    one = streams(*servers[name], prompt.system, concurrent, number)
                    if number:  # the first round warms
                        found.setdefault((name, concurrent), []).append(one)
        hits = cached(gateway, 50)
    middle = {
        which: {name: statistics.median(one[name] for one in rows) for name in rows[0]} for which, rows in found.items()
    }
    for (name, concurrent), one in middle.items():
        report.row("chat, tokens", name, concurrent, one["tokens"], one["ttft"], "", one["slowest"])
    for concurrent in (1, 8):
        ratio = middle["gateway", concurrent]["tokens"] / middle["engine", concurrent]["tokens"]
        report.figure(f"chat_tokens_over_engine_{concurrent}", ratio)
    report.figure("chat_added_ttft_ms", middle["gateway", 1]["ttft"] - middle["engine", 1]["ttft"])
    report.figure("chat_cached_ms", statistics.median(hits))


async def load(url: str, body: Any, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second, and milliseconds at the median and other percentiles, over kept connections."""
    host, _, rest = url.removeprefix("http://").partition("/")
    content = json.dumps(body).encode()
    head = (
        f"POST /{rest} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
    )
    request = head.encode() + b"\r\n" + content
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        while (begun := time.perf_counter()) < end:
            writer.write(request)
            response = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not response.startswith(b"http/1.1 200"):
                raise RuntimeError(response.decode())
            await reader.readexactly(int(response.split(b"content-length: ")[1].split(b"\r\n")[0]))
            taken.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    taken.sort()
    p50, p90, p99 = (1000 * taken[int(len(taken) * q)] for q in (0.5, 0.9, 0.99))
    return {"rps": len(taken) / (time.perf_counter() - begun), "p50": p50, "p90": p90, "p99": p99}


def streams(address: str, key: str, model: str | None, system: str, concurrent: int, number: int) -> dict[str, float]:
    """Tokens a second of so many streams at once, of one length, and milliseconds to the first token."""
    texts = [f"{concurrent}.{number}.{place}: a long story about {subject}." for place, subject in enumerate(SUBJECTS)]
    begun = time.perf_counter()
    if concurrent == 1:
        heard = [hear(address, key, text, LENGTH, model, system) for text in texts[:3]]
    else:
        heard = together(address, key, texts[:concurrent], LENGTH, model, system)
    seconds = time.perf_counter() - begun
    firsts = [1000 * each.first for each in heard]
    return {
        "tokens": sum(each.tokens for each in heard) / seconds,
        "ttft": statistics.median(firsts),
        "slowest": max(firsts),
    }


def cached(address: str, times: int) -> list[float]:
    """Milliseconds of the same question again, over a kept connection; the first one, which is answered, left out."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
    connection, taken = HTTPConnection(urlsplit(address).netloc, timeout=300), []
    for _ in range(times + 1):
        begun = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        taken.append(1000 * (time.perf_counter() - begun))
    if response.headers["x-driftline-cache"] != "hit":
        raise RuntimeError("the answer did not come from the cache")
    connection.close()
    return taken[1:]


@contextlib.contextmanager
def at_gateway(folder: Path, *releases: Release) -> Iterator[str]:
    """A stack of the gateway and these releases alone, in a state folder of its own, which is `folder`/state."""
    from flows.deployed.servers import servers
    from services.rollout.shares import promote, sync_endpoints, upsert_release
    from services.runtime import stack
    from services.store.database import Store
    from tasks.release.seal import read_manifest

    state, unreachable = folder / "state", "http://127.0.0.1:9"
    state.mkdir()
    (state / "bentoml").symlink_to(settings().state / "bentoml")
    ports: dict[str, Any] = {"gateway_port": free_port(), "threads": settings().threads}
    own = Settings(
        state=state, prefect_url=unreachable, tracking_url=unreachable, gateway_store="", worker=False, **ports
    )
    try:
        stack.up(own, servers(own))
        store = Store(own)
        for release in releases:
            stack.serve_release(own, release)
            upsert_release(store, read_manifest(release.folder))
            sync_endpoints(store, own)
            promote(store, release.case, release.digest, "for the benchmark")
        time.sleep(1)
        yield f"http://127.0.0.1:{own.gateway_port}"
    finally:
        stack.down(own)


def fastapi(folder: Path, release: Release) -> contextlib.AbstractContextManager[str]:
    port = free_port()
    return running([sys.executable, "-c", FASTAPI, str(release.folder / "model.skops"), str(port)], port, folder)


def mlflow(folder: Path, release: Release) -> contextlib.AbstractContextManager[str]:
    port, model = free_port(), f"models:/{release.case}/{release.version}"
    command = [sys.executable, *f"-m mlflow models serve -m {model} --env-manager local -p {port}".split()]
    return running(command, port, folder, {"MLFLOW_TRACKING_URI": settings().mlflow_uri})


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, more: Mapping[str, str] | None = None) -> Iterator[str]:
    log = folder / f"{port}.log"
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where MLflow looks for uvicorn
    environment = {**os.environ, **ALONE, "PATH": path, "PYTHONPATH": str(ROOT), **(more or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent_death_signal(command), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{address}/ping", command[2], log, 180, lambda: process.poll() is None)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # and what it started
        process.wait(20)


def champion(case: str) -> Release | None:
    from tasks.release.registry import load_champion as find

    return find(settings().tracking, settings().state, case)


def gateway_score(response: Any) -> float:
    return float(response["predictions"][0]["score"])


def _post(url: str, body: Any) -> bytes:
    import httpx

    return httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status().content


if __name__ == "__main__":
    main()
