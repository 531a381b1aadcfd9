"""Good chat calls beside hostile ones, at a served release: does one fail, and how much longer do they wait?

    python -m benchmarks.hostile_chat [--quick] [--json FILE]

The same good calls are made twice, alone and with a hostile call after every nine of them: schemas that keep an engine
busy, answers without an end, nested JSON, clients that hang up or read slowly.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.generate import make_release, open_small
from benchmarks.table import Report, arguments
from tasks.core.sockets import unix_socket_path

CALLS, QUICK = 5000, 300
CLIENTS = 8
EVERY = 10  # the call of so many that is hostile
SLOTS, ANSWER = 8, 16  # of the release; tokens
IMPATIENCE = 1.0  # seconds after which a hostile client hangs up
REQUIRED = {"failed_good_calls": "0", "p99_added_seconds": "<= 2"}
FREE = {"type": "text"}


def _with_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def _nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _branching(depth: int) -> Any:
    return {"anyOf": [_branching(depth - 1)] * 2} if depth else {"type": "string", "maxLength": 9}


SCHEMAS = [
    {"enum": [f"value {i:06}" for i in range(3000)]},
    {"enum": [f"value {i:06}" for i in range(300)]},  # within the bounds, and dear
    {"type": "object", "properties": {f"a{i}": {"type": "string"} for i in range(1000)}},
    {"type": "object", "properties": {f"a{i}": {"type": "null"} for i in range(95)}},
    {"type": "integer", "minimum": 10**18},
    {"type": "string", "pattern": "^(a?){200}a{200}$"},
    {"type": "string", "pattern": "^(aa|a){50}$"},
    {"type": "string", "minLength": 5, "maxLength": 3},
    {"type": "array", "items": {"type": "string"}, "minItems": 100_000},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}}},
    _nested(90),
    _branching(11),
]
ENDLESS = {"response_format": FREE, "ignore_eos": True, "max_tokens": 900_000}


@dataclass
class Outcome:
    """What came of the calls of one run."""

    waits: list[float] = field(default_factory=list)  # seconds of the good calls
    failed: list[str] = field(default_factory=list)  # good ones
    hostile: Counter[str] = field(default_factory=Counter)  # kind and status

    @property
    def p99(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)]


class Caller:
    """A client that makes good calls and hostile ones."""

    def __init__(self, http: aiohttp.ClientSession, address: str, outcome: Outcome) -> None:
        self._http, self._url, self._outcome = http, f"{address}/v1/chat/completions", outcome

    async def good(self, number: int) -> None:
        """An ordinary question, streamed every other time."""
        body = _body(f"Question {number}: is the flight late?", stream=number % 2 == 0, max_tokens=ANSWER)
        begun = time.perf_counter()
        try:
            async with self._http.post(self._url, json=body) as response:
                text = await response.text()
            whole = '"finish_reason":' in text and "error" not in text
            if response.status != 200 or not whole:
                self._outcome.failed.append(f"{response.status} {text[-200:]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self._outcome.failed.append(f"{type(error).__name__}: {error}")
        self._outcome.waits.append(time.perf_counter() - begun)

    async def hostile(self, number: int) -> None:
        """One of the attacks in turn."""
        kinds = (self._schema, self._deep, self._hang_up, self._schema, self._endless, self._slow_reader)
        kind = kinds[number % len(kinds)]
        try:
            status = await kind(number)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        self._outcome.hostile[f"{kind.__name__.strip('_')} {status}"] += 1

    async def _schema(self, number: int) -> str:
        body = _body("Answer.", **_with_schema(SCHEMAS[number // 3 % len(SCHEMAS)]))
        async with self._http.post(self._url, json=body, timeout=aiohttp.ClientTimeout(total=60)) as response:
            return str(response.status)

    async def _deep(self, number: int) -> str:
        deep = ("[", '{"a":')[number % 2] * 100_000
        async with self._http.post(self._url, data='{"messages": ' + deep) as response:
            return str(response.status)

    async def _endless(self, number: int) -> str:
        async with self._http.post(self._url, json=_body(f"Story {number}.", **ENDLESS)) as response:
            return str(response.status)

    async def _hang_up(self, number: int) -> str:
        body = _body(f"Story {number}.", stream=number % 2 == 0, **ENDLESS)
        with suppress(TimeoutError):
            async with asyncio.timeout(IMPATIENCE), self._http.post(self._url, json=body) as response:
                await response.read()
        return "left"

    async def _slow_reader(self, number: int) -> str:
        async with self._http.post(self._url, json=_body(f"Story {number}.", stream=True, **ENDLESS)) as response:
            for _ in range(4):
                await response.content.read(10)
                await asyncio.sleep(IMPATIENCE / 4)
        return "left"


def _body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


async def run(address: str, calls: int, attacked: bool, clients: int = CLIENTS) -> Outcome:
    """Make so many calls, one of EVERY hostile or left out, by clients that each wait for their last one."""
    outcome, numbers = Outcome(), itertools.count()
    timeout = aiohttp.ClientTimeout(total=300)
    path = unix_socket_path(address)
    connector = aiohttp.UnixConnector(path, limit=0) if path else aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        caller = Caller(http, "http://localhost" if path else address, outcome)

        async def call_on() -> None:
            while (number := next(numbers)) < calls:
                if number % EVERY:
                    await caller.good(number)
                elif attacked:
                    await caller.hostile(number // EVERY)

        await asyncio.gather(*(call_on() for _ in range(clients)))
    return outcome


def main() -> None:
    options = arguments("Good chat calls beside hostile ones.")
    calls = QUICK if options.quick else CALLS

    from services.serving.package import bento_folder, package
    from services.serving.process import serve_bento
    from tasks.core.settings import ROOT, apply_environment, environment, settings
    from tasks.train.config import Serving

    apply_environment(settings())
    report = Report(
        f"{calls:,} chat calls by {CLIENTS} clients, one in {EVERY} hostile",
        ["good calls", "failed", "p50, s", "p99, s", "longest, s"],
        REQUIRED,
    )
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        folder, _ = make_release(state, open_small(state), Serving(slots=SLOTS, answer_tokens=ANSWER))
        tag = package(folder, state / "bentoml", ROOT / "requirements.lock")
        variables = {**environment(settings()), "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        with serve_bento(bento_folder(state / "bentoml", tag), variables, state / "served.log") as address:
            asyncio.run(run(address, 50, attacked=False))  # warms the slots
            outcomes = {what: asyncio.run(run(address, calls, what == "with hostile ones")) for what in WHAT}
        restarts = (state / "served.log").read_text(encoding="utf-8").count("Another engine is up")
    for what, outcome in outcomes.items():
        waits = sorted(outcome.waits)
        report.row(what, len(outcome.failed), waits[len(waits) // 2], outcome.p99, waits[-1])
    alone, attacked = outcomes.values()
    report.figure("failed_good_calls", len(alone.failed) + len(attacked.failed))
    report.figure("p99_added_seconds", attacked.p99 - alone.p99)
    report.figure("engine_restarts", restarts)
    report.notes.append(f"hostile calls: {json.dumps(dict(sorted(attacked.hostile.items())))}")
    report.notes += attacked.failed[:5]
    report.finish(["bentoml", "xllamacpp"], options.json)


WHAT = ("alone", "with hostile ones")

if __name__ == "__main__":
    main()
