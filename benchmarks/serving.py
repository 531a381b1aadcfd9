"""One-row predictions, many rows and chat through the gateway, against other servers, other gateways and the engine.

    python -m benchmarks.serving [--quick] [--json FILE] [--litellm VENV] [--before CHECKOUT]

The champions of the state folder are served: `driftline run flights`, and `driftline run assistant` for chat, come
first. Each server runs alone with its client on the same cores, one thread each. Every answer's prediction is compared
with the pipeline's own. `--litellm` is a virtual environment with LiteLLM's proxy, which is put before the same engine;
`--before` is a checkout of an earlier commit that has run the same case, whose gateway gets the same calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import peers
from benchmarks.generate import SUBJECTS, hear, together
from benchmarks.load import Client, added, load, processor_seconds, stack_processes
from benchmarks.table import Report, arguments, in_own_process, median
from services.serving.process import free_port
from tasks.core.settings import Settings, apply_environment, settings
from tasks.release.results import Release

CASE, CHAT = "flights", "assistant"
CONNECTIONS = (1, 16, 64)
MANY_ROWS, MANY_CONNECTIONS = 1000, 4
REQUIRED = {
    "rps_over_mlflow_16": ">= 12",
    "rps_over_fastapi_16": ">= 4",
    "p50_over_mlflow_1": "< 1",
    "p50_over_fastapi_1": "< 1",
    "p99_over_mlflow_1": "< 1",
    "p99_over_fastapi_1": "< 1",
    "p99_over_p50_64": "<= 3",
    "gateway_added_ms": "<= 1, or a third of litellm_added_ms",
    "processor_over_before": "<= 0.4",
    "rows_over_before": ">= 3",
    "chat_tokens_over_engine_1": ">= 0.95",
    "chat_tokens_over_engine_8": ">= 0.95",
    "chat_added_ttft_ms": "<= 5",
    "chat_cached_ms": "<= 5",
    "predictions_that_differ": "0",
}
LENGTH = 64  # tokens of an answer
ROUNDS = 3  # of the comparison with an earlier commit, and of what a gateway adds; the median counts


def main() -> None:
    options = arguments(
        "The gateway against other servers of the same model, other gateways, and the bare engine.",
        litellm=f"virtual environment with `{peers.LITELLM}`",
        before="checkout of an earlier commit that has run the case",
    )
    if options.one:
        print(json.dumps(asyncio.run(load(**json.loads(options.one)))))
        return
    apply_environment(settings())
    report = Report("Serving", ["what", "server", "connections", "per second", "p50 ms", "p90 ms", "p99 ms"], REQUIRED)
    seconds = 2 if options.quick else 15
    release, talker = champion(CASE), champion(CHAT)
    if release is None:
        print(f"  no champion of {CASE}: driftline run {CASE}")
    else:
        table(report, release, seconds)
        governed(report, release, 200 if options.quick else 2000)
        against_before(report, release, Path(options.before).resolve() if options.before else None, seconds / 2)
    if talker is None:
        print(f"  no champion of {CHAT}: driftline run {CHAT}")
    else:
        chat(report, talker, Path(options.litellm).resolve() if options.litellm else None, 1 if options.quick else 8)
    report.finish(("bentoml", "fastapi", "mlflow", "uvicorn", "xllamacpp"), options.json)


def table(report: Report, release: Release, seconds: float) -> None:
    """Requests a second of one row, at the gateway and at its peers."""
    example = golden(release)
    row, expected = example["features"], example["prediction"]
    split = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
    servers: dict[str, tuple[Callable[[Path, Release], Any], str, Any, Callable[[Any], float]]] = {
        "gateway": (at_gateway, f"/v1/predict/{CASE}", {"rows": [row]}, gateway_score),
        "fastapi": (peers.fastapi, "/predict", {"rows": [row]}, lambda response: response[0]),
        "bentoml": (peers.bentoml, "/predict", {"rows": [row]}, lambda response: response[0]),
        "mlflow": (peers.mlflow, "/invocations", split, lambda response: response["predictions"][0][1]),
    }
    found: dict[tuple[str, int], dict[str, float]] = {}
    different = 0
    for name, (serving, path, body, predicted) in servers.items():
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), release) as address:
            response = json.loads(_post(address + path, body))
            different += abs(predicted(response) - expected) > 1e-12
            for connections in CONNECTIONS:
                found[name, connections] = one = measure(address + path, body, connections, seconds)
                report.row("one row", name, connections, one["rps"], one["p50"], one["p90"], one["p99"])
    for peer in [name for name in servers if name != "gateway"]:
        for connections in CONNECTIONS:
            gateway, reference = found["gateway", connections], found[peer, connections]
            report.figure(f"rps_over_{peer}_{connections}", gateway["rps"] / reference["rps"])
            report.figure(f"p50_over_{peer}_{connections}", gateway["p50"] / reference["p50"])
            report.figure(f"p99_over_{peer}_{connections}", gateway["p99"] / reference["p99"])
    most = found["gateway", max(CONNECTIONS)]
    report.figure(f"p99_over_p50_{max(CONNECTIONS)}", most["p99"] / most["p50"])
    report.figure("predictions_that_differ", different)


def governed(report: Report, release: Release, times: int) -> None:
    """What the gateway adds to a prediction of one row: without a key, then with key, budget and record."""
    from sqlalchemy import select

    from services.store.database import Store, endpoints
    from services.store.keys import create_key

    body, path = {"rows": [golden(release)["features"]]}, f"/v1/predict/{CASE}"
    with tempfile.TemporaryDirectory() as folder, at_gateway(Path(folder), release) as address:
        store = Store(Settings(state=Path(folder) / "state"))
        with store.reading() as connection:
            served = connection.execute(select(endpoints.c.address)).scalar_one()
        for name in ("gateway_added_ungoverned_ms", "gateway_added_ms"):
            # from the first key on, every call needs one
            key = create_key(store, "bench", ["predict"], None, None, 1e6)[1] if name == "gateway_added_ms" else ""
            time.sleep(2)
            direct, through = Client(served, "/predict", body), Client(address, path, body, key)
            rounds = [added(direct, {name: through}, times)[name] for _ in range(ROUNDS)]
            report.figure(name, median(rounds))
        store.close()


def against_before(report: Report, release: Release, before: Path | None, seconds: float) -> None:
    """Processor time a call of all processes of the stack, and rows a second of large requests, now and earlier."""
    measured: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        folders = {name: Path(stack.enter_context(tempfile.TemporaryDirectory())) for name in ("now", "before")}
        addresses = {"now": stack.enter_context(at_gateway(folders["now"], release))}
        if before:
            addresses["before"] = stack.enter_context(peers.earlier(folders["before"], before, CASE))
        row = golden(release)["features"]
        for _ in range(ROUNDS):
            for name, address in addresses.items():
                url, body = f"{address}/v1/predict/{CASE}", {"rows": [row]}
                began = processor_seconds(stack_processes(folders[name]))
                one = measure(url, body, 16, seconds)
                ended = processor_seconds(stack_processes(folders[name]))
                many = measure(url, body, MANY_CONNECTIONS, seconds, MANY_ROWS)
                # the calls that warm up count for both
                calls = one["calls"] + one["warming"]
                cost = {"ms": 1000 * (ended - began) / calls, "rows": MANY_ROWS * many["rps"]}
                measured.setdefault(name, []).append(cost)
    middle = {
        name: {key: median([one[key] for one in rounds]) for key in rounds[0]} for name, rounds in measured.items()
    }
    for name, one in middle.items():
        report.figure(f"processor_ms_a_call_{name}", one["ms"])
        report.figure(f"rows_a_second_{name}", one["rows"])
    if before:
        report.figure("processor_over_before", middle["now"]["ms"] / middle["before"]["ms"])
        report.figure("rows_over_before", middle["now"]["rows"] / middle["before"]["rows"])


def measure(url: str, body: Any, connections: int, seconds: float, copies: int = 1) -> dict[str, float]:
    """The load of a client in a process of its own, after one that warms up."""
    request = {"url": url, "body": body, "connections": connections, "seconds": seconds, "copies": copies}
    warming = in_own_process("benchmarks.serving", **request | {"seconds": 1})
    return {**in_own_process("benchmarks.serving", **request), "warming": warming["calls"]}


def chat(report: Report, release: Release, venv: Path | None, rounds: int) -> None:
    """Tokens a second and time to the first one: the engine alone, and through each gateway, in turns."""
    from tasks.language.engine import start_engine
    from tasks.language.prompts import released_prompt
    from tasks.release.seal import read_manifest

    sealed = read_manifest(release.folder)["sealed"]
    prompt = released_prompt(release.folder)  # both read the same prompt
    slots, context = sealed["serving"]["slots"], sealed["context"]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = stack.enter_context(
            start_engine(release.model, threads=settings().threads, slots=slots, context=context)
        )
        gateway = stack.enter_context(at_gateway(folder, release))
        servers: dict[str, tuple[str, str, str | None]] = {
            "engine": (bare.address, bare.key, None),
            "gateway": (gateway, "", CHAT),
        }
        if venv:
            proxy = stack.enter_context(peers.litellm(folder, venv, bare.address, bare.key))
            servers["litellm"] = (proxy, peers.LITELLM_KEY, "chat")
        for number in range(rounds + 1):
            for concurrent in (1, 8):
                order = list(servers) if number % 2 else list(servers)[::-1]
                for name in order:
                    one = streams(*servers[name], prompt.system, concurrent, number)
                    if number:  # the first round warms
                        found.setdefault((name, concurrent), []).append(one)
        hits = cached(gateway, 50)
        ways = {
            name: Client(address, "/v1/chat/completions", token(model, prompt.system), key)
            for name, (address, key, model) in servers.items()
            if name != "engine"
        }
        direct = Client(bare.address, "/v1/chat/completions", token(None, prompt.system), bare.key)
        one_token = added(direct, ways, 25 * rounds)

    def firsts(name: str) -> list[float]:
        return [one["ttft"] for one in found[name, 1]]

    middle = {
        which: {name: statistics.median(one[name] for one in rows) for name in rows[0]} for which, rows in found.items()
    }
    for (name, concurrent), one in middle.items():
        report.row("chat, tokens", name, concurrent, one["tokens"], one["ttft"], "", one["slowest"])
    for concurrent in (1, 8):
        ratio = middle["gateway", concurrent]["tokens"] / middle["engine", concurrent]["tokens"]
        report.figure(f"chat_tokens_over_engine_{concurrent}", ratio)
    for name in one_token:
        prefix = "chat" if name == "gateway" else name
        report.figure(
            f"{prefix}_added_ttft_ms", median([a - b for a, b in zip(firsts(name), firsts("engine"), strict=True)])
        )
        report.figure(f"{prefix}_added_ms", one_token[name])
    report.figure("chat_cached_ms", statistics.median(hits))


def token(model: str | None, system: str) -> dict[str, Any]:
    """A request for one token; no cache may answer it, since it is drawn."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hello"}]
    body: dict[str, Any] = {"messages": messages, "temperature": 0.5, "max_tokens": 1}
    return body | ({"model": model} if model else {})


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


def champion(case: str) -> Release | None:
    from tasks.release.registry import load_champion as find

    return find(settings().tracking, settings().state, case)


def golden(release: Release) -> dict[str, Any]:
    """An example of the hold-out with the prediction that was sealed."""
    example: dict[str, Any] = json.loads((release.folder / "golden.json").read_text(encoding="utf-8"))[0]
    return example


def gateway_score(response: Any) -> float:
    return float(response["predictions"][0]["score"])


def _post(url: str, body: Any) -> bytes:
    import httpx

    return httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status().content


if __name__ == "__main__":
    main()
