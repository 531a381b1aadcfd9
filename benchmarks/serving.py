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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process
from tasks.foundation.settings import ROOT, Settings, apply_environment, settings
from tasks.release.process import ending_with_starter, free_port, wait_until_ready
from tasks.release.results import Release

CASE, CHAT = "flights", "assistant"
CONNECTIONS = (1, 16, 64)
REQUIRED = {
    "rps_over_mlflow_16": ">= 3",
    "rps_over_fastapi_16": ">= 1.5",
    "p99_over_mlflow_16": "< 1",
    "p99_over_fastapi_16": "< 1",
    "chat_tokens_over_engine_1": ">= 0.95",
    "chat_tokens_over_engine_8": ">= 0.95",
    "chat_added_ttft_ms": "<= 10",
    "chat_cached_ms": "<= 5",
    "predictions_that_differ": "0",
}
ALONE = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000"}
ASKED = {"response_format": {"type": "text"}, "max_tokens": 48}

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
    report = Report("Serving", ["what", "server", "connections", "per second", "p50 ms", "p99 ms"], REQUIRED)
    seconds = 4 if options.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        table(report, Path(folder), seconds)
    with tempfile.TemporaryDirectory() as folder:
        chat(report, Path(folder), 1 if options.quick else 3)
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
        "gateway": (at_gateway(folder, release), f"/v1/predict/{CASE}", {"rows": [row]}, _ours),
        "fastapi": (fastapi(folder, release), "/predict", {"rows": [row]}, lambda said: said[0]),
        "mlflow": (mlflow(folder, release), "/invocations", split, lambda said: said["predictions"][0][1]),
    }
    found: dict[tuple[str, int], dict[str, float]] = {}
    different = 0
    for name, (serving, path, body, predicted) in servers.items():
        with serving as address:
            said = json.loads(_post(address + path, body))
            different += abs(predicted(said) - examples[0]["prediction"]) > 1e-12
            for connections in CONNECTIONS:
                asked = {"url": address + path, "body": body, "connections": connections, "seconds": seconds}
                in_own_process("benchmarks.serving", **asked | {"seconds": 1})
                found[name, connections] = one = in_own_process("benchmarks.serving", **asked)
                report.row("one row", name, connections, one["rps"], one["p50"], one["p99"])
    for peer in ("mlflow", "fastapi"):
        for connections in CONNECTIONS:
            ours, theirs = found["gateway", connections], found[peer, connections]
            report.figure(f"rps_over_{peer}_{connections}", ours["rps"] / theirs["rps"])
            report.figure(f"p99_over_{peer}_{connections}", ours["p99"] / theirs["p99"])
    report.figure("predictions_that_differ", different)


def chat(report: Report, folder: Path, rounds: int) -> None:
    """Tokens a second and time to the first one: the engine alone, then through the gateway, in turns."""
    release = champion(CHAT)
    if release is None:
        print(f"  no champion of {CHAT}: driftline run {CHAT}")
        return
    from tasks.foundation.engine import engine
    from tasks.release.seal import read_manifest

    sealed = read_manifest(release.folder)["sealed"]
    slots, context = sealed["serving"]["slots"], sealed["context"]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with (
        engine(release.model, threads=settings().threads, slots=slots, context=context) as bare,
        at_gateway(folder, release) as gateway,
    ):
        servers = {"engine": (bare.address, bare.key), "gateway": (gateway, "")}
        for number in range(rounds + 1):
            for concurrent in (1, 8):
                for name, (address, key) in servers.items():
                    one = streams(f"{address}/v1/chat/completions", key, release, concurrent, number)
                    if number:  # the first round warms
                        found.setdefault((name, concurrent), []).append(one)
        cached = [_timed_answer(gateway, release) for _ in range(20)][1:]
    middle = {
        which: {name: statistics.median(one[name] for one in rows) for name in rows[0]} for which, rows in found.items()
    }
    for (name, concurrent), one in middle.items():
        report.row("chat, tokens", name, concurrent, one["tokens"], one["ttft"], one["slowest"])
    for concurrent in (1, 8):
        ratio = middle["gateway", concurrent]["tokens"] / middle["engine", concurrent]["tokens"]
        report.figure(f"chat_tokens_over_engine_{concurrent}", ratio)
    report.figure("chat_added_ttft_ms", middle["gateway", 1]["ttft"] - middle["engine", 1]["ttft"])
    report.figure("chat_cached_ms", statistics.median(cached))


async def load(url: str, body: Any, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second, and milliseconds at the median and the 99th percentile, over kept connections."""
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
            said = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not said.startswith(b"http/1.1 200"):
                raise RuntimeError(said.decode())
            await reader.readexactly(int(said.split(b"content-length: ")[1].split(b"\r\n")[0]))
            taken.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    taken.sort()
    p50, p99 = (1000 * taken[int(len(taken) * q)] for q in (0.5, 0.99))
    return {"rps": len(taken) / (time.perf_counter() - begun), "p50": p50, "p99": p99}


def streams(url: str, key: str, release: Release, concurrent: int, number: int) -> dict[str, float]:
    """Tokens a second of so many streams at once, and milliseconds to the first token."""
    import httpx

    examples = json.loads((release.folder / "golden.json").read_text(encoding="utf-8"))
    headers = {"authorization": f"Bearer {key}"} if key else {}

    def one(place: int) -> tuple[int, float]:
        messages = examples[(place + number) % len(examples)]["messages"]
        body = {"model": CHAT, "messages": messages, "stream": True, "temperature": 0.7, **ASKED}
        begun, first, tokens = time.perf_counter(), 0.0, 0
        with httpx.stream("POST", url, json=body, headers=headers, timeout=120, trust_env=False) as answer:
            for line in answer.iter_lines():
                if '"content":"' in line.replace(" ", ""):
                    tokens += 1
                    first = first or time.perf_counter() - begun
        return tokens, 1000 * first

    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        found = list(pool.map(one, range(concurrent)))
    seconds = time.perf_counter() - begun
    firsts = [first for _, first in found]
    return {
        "tokens": sum(tokens for tokens, _ in found) / seconds,
        "ttft": statistics.median(firsts),
        "slowest": max(firsts),
    }


@contextlib.contextmanager
def at_gateway(folder: Path, *releases: Release) -> Iterator[str]:
    """A stack of the gateway and these releases alone, in a state folder of its own, which is `folder`/state."""
    from tasks.gateway.rollout import follow_stack, know, promote
    from tasks.gateway.store import Store
    from tasks.release.seal import read_manifest
    from tasks.serve import stack

    state, elsewhere = folder / "state", "http://127.0.0.1:9"
    state.mkdir()
    (state / "bentoml").symlink_to(settings().state / "bentoml")
    given: dict[str, Any] = {"gateway_port": free_port(), "threads": settings().threads}
    own = Settings(state=state, prefect_url=elsewhere, tracking_url=elsewhere, gateway_store="", **given)
    try:
        stack.up(own)
        store = Store(own)
        for release in releases:
            stack.serve_release(own, release)
            know(store, read_manifest(release.folder))
            follow_stack(store, own)
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
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        model,
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    return running(command, port, folder, {"MLFLOW_TRACKING_URI": settings().mlflow_uri})


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, more: Mapping[str, str] | None = None) -> Iterator[str]:
    log = folder / f"{port}.log"
    environment = {**os.environ, **ALONE, "PYTHONPATH": str(ROOT), **(more or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ending_with_starter(command), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{address}/ping", command[2], log, 180, lambda: process.poll() is None)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # and what it started
        process.wait(20)


def champion(case: str) -> Release | None:
    from tasks.release.registry import champion as find

    return find(settings().tracking, settings().state, case)


def _ours(said: Any) -> float:
    return said["predictions"][0]["score"]


def _post(url: str, body: Any) -> bytes:
    import httpx

    return httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status().content


def _timed_answer(address: str, release: Release) -> float:
    examples = json.loads((release.folder / "golden.json").read_text(encoding="utf-8"))
    body = {"model": CHAT, "messages": examples[0]["messages"], "temperature": 0, **ASKED}
    begun = time.perf_counter()
    _post(f"{address}/v1/chat/completions", body)
    return 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
