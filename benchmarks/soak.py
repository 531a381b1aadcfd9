"""Ten minutes of everything at once through the gateway: do its memory and its releases' grow, and does anything fail?

    python -m benchmarks.soak [--quick] [--json FILE]

The champions of the state folder are served: `driftline run flights`, and `driftline run assistant` for chat, come
first. Clients predict, chat, stream, ask again what the cache knows, judge answers, hang up, and send nonsense; each
answer's status is held against what it should be. Memory is that of a program and all that it started.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.serving import CASE, CHAT, at_gateway, champion
from benchmarks.table import Report, arguments
from services.runtime.process_specs import FORKS
from services.runtime.supervision import Supervisor
from tasks.core.settings import apply_environment, settings
from tasks.release.results import Release

SECONDS, QUICK = 600, 60
WARM = 0.2  # of that time, after which memory should no longer grow
CLIENTS = {"table": 6, "chat": 2}
PAUSE = 0.05  # seconds between a client's calls, on average
SAMPLES = 120
REQUIRED = {"errors": "0"}
FREE: dict[str, Any] = {"model": CHAT, "response_format": {"type": "text"}, "max_tokens": 24}

Act = Callable[["Client"], Awaitable[int]]


class Client:
    """Asks, and remembers what it was answered last."""

    def __init__(self, http: aiohttp.ClientSession, examples: list[dict[str, Any]], number: int) -> None:
        self.http, self.examples, self.chance = http, examples, random.Random(number)
        self.last = "req-none"

    async def post(self, path: str, content: bytes) -> int:
        async with self.http.post(path, data=content) as answer:
            await answer.read()
            if answer.ok and "feedback" not in path:
                self.last = answer.headers["x-request-id"]
            return answer.status

    def rows(self, count: int) -> bytes:
        return json.dumps({"rows": [e["features"] for e in self.chance.choices(self.examples, k=count)]}).encode()

    def talk(self, **more: Any) -> bytes:
        messages = self.chance.choice(self.examples)["messages"]
        return json.dumps({**FREE, "messages": messages, "temperature": 0.8, **more}).encode()

    async def hang_up(self) -> int:
        """Read the first piece of a long stream, and go."""
        async with self.http.post("/v1/chat/completions", data=self.talk(stream=True, max_tokens=200)) as answer:
            await answer.content.readany()
            answer.close()
            return answer.status


async def judge(client: Client) -> int:
    status = await client.post(f"/v1/feedback/{client.last}", b'{"thumbs": "up"}')
    return 201 if client.last == "req-none" and status == 404 else status


# what is done, how often, the status that it should get
Mix = list[tuple[str, int, int, Act]]
PREDICT, COMPLETE = f"/v1/predict/{CASE}", "/v1/chat/completions"
TABLE: Mix = [
    ("one row", 60, 200, lambda client: client.post(PREDICT, client.rows(1))),
    ("100 rows", 10, 200, lambda client: client.post(PREDICT, client.rows(100))),
    ("feedback", 15, 201, judge),
    ("wrong row", 5, 400, lambda client: client.post(PREDICT, b'{"rows": [{"nothing": 1}]}')),
    ("no JSON", 5, 400, lambda client: client.post(PREDICT, b"{nope")),
    ("no such case", 5, 404, lambda client: client.post("/v1/predict/nothing", client.rows(1))),
]
TALK: Mix = [
    ("chat", 25, 200, lambda client: client.post(COMPLETE, client.talk())),
    ("stream", 25, 200, lambda client: client.post(COMPLETE, client.talk(stream=True))),
    ("asked again", 20, 200, lambda client: client.post(COMPLETE, client.talk(temperature=0))),
    ("hung up", 15, 200, Client.hang_up),
    ("feedback", 10, 201, judge),
    ("no message", 5, 400, lambda client: client.post(COMPLETE, client.talk(messages=[]))),
]


def main() -> None:
    options = arguments("Ten minutes of everything at once through the gateway.")
    apply_environment(settings())
    seconds = QUICK if options.quick else SECONDS
    found = {case: release for case in (CASE, CHAT) if (release := champion(case))}
    if CASE not in found:
        print(f"  no champion of {CASE}: driftline run {CASE}")
        return
    report = Report("Soak", ["program", "MB when warm", "MB at the end", "MB grown"], REQUIRED)
    with tempfile.TemporaryDirectory() as folder, at_gateway(Path(folder), *found.values()) as address:
        calls, wrong, samples = asyncio.run(soak(address, found, Supervisor(Path(folder) / "state"), seconds))
    for program in samples[0]:
        held = [sample[program] for sample in samples]
        few, warm = max(1, len(held) // 20), int(len(held) * WARM)
        before, after = statistics.mean(held[warm : warm + few]), statistics.mean(held[-few:])
        report.row(program, before, after, after - before)
        report.figure(f"grown_mb_{program.rpartition('-')[0]}", after - before)
    for what, count in sorted(calls.items()):
        report.figure(f"calls_{what.replace(' ', '_')}", count)
    report.figure("errors", wrong.total())
    for problem, count in wrong.most_common(10):
        print(f"  {count} x {problem}")
    report.finish(("bentoml", "uvicorn", "aiohttp"), options.json)


async def soak(
    address: str, releases: dict[str, Release], stack: Supervisor, seconds: float
) -> tuple[Counter[str], Counter[str], list[dict[str, float]]]:
    """How often each thing was done, what came out otherwise than it should, and megabytes by program over time."""
    end, calls, wrong = time.monotonic() + seconds, Counter[str](), Counter[str]()

    async def go_on(client: Client, mix: Mix) -> None:
        weights = [often for _, often, _, _ in mix]
        while time.monotonic() < end:
            ((what, _, wanted, act),) = client.chance.choices(mix, weights)
            calls[what] += 1
            try:
                status = await act(client)
                if status != wanted:
                    wrong[f"{what}: {status}"] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                wrong[f"{what}: {error!r}"] += 1
            await asyncio.sleep(client.chance.uniform(0, 2 * PAUSE))

    samples: list[dict[str, float]] = []

    async def sample() -> None:
        while time.monotonic() < end:
            samples.append(await asyncio.to_thread(memory, stack))
            await asyncio.sleep(seconds / SAMPLES)

    async with aiohttp.ClientSession(address, timeout=aiohttp.ClientTimeout(120)) as http:
        going = []
        for case, kind, mix in ((CASE, "table", TABLE), (CHAT, "chat", TALK)):
            if case in releases:
                examples = json.loads((releases[case].folder / "golden.json").read_text(encoding="utf-8"))
                going += [go_on(Client(http, examples, number), mix) for number in range(CLIENTS[kind])]
        await asyncio.gather(sample(), *going)
    return calls, wrong, samples


def memory(stack: Supervisor) -> dict[str, float]:
    """Megabytes of each program with all that it started; a release's fork, which another one started, by its port."""
    import psutil

    processes, programs = stack.processes(), stack.programs()
    forks = psutil.Process(processes[FORKS]["pid"]).children() if FORKS in processes else []
    by_port = {each.laddr.port: fork for fork in forks for each in fork.net_connections() if each.status == "LISTEN"}
    held = {}
    for name in processes.keys() - {FORKS}:
        of = [psutil.Process(processes[name]["pid"]), *filter(None, [by_port.get(programs[name].port)])]
        family = {each for one in of for each in (one, *one.children(recursive=True))}
        held[name] = sum(each.memory_info().rss for each in family) / 2**20
    return held


if __name__ == "__main__":
    main()
