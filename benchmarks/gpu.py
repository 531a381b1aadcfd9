"""Tuning and serving on a CUDA GPU: our sft stage in three ways, and vLLM with a release's adapter.

    python -m benchmarks.gpu [--quick] [--json FILE] [--model MODEL] [--vllm-python PATH]

MODEL is a base besides the small one, as in a case: file://FOLDER, or hf://ORG/NAME@REVISION with HF_HUB_OFFLINE=0.
PATH is the Python of an environment that has vLLM. The stage is the one that `tune` runs, and the server is started by
the command that `driftline vllm` prints. Each measurement has a process of its own; what can't run says why in its row.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.finetune import MODEL, model_of, run_stage_benchmark, work_of
from benchmarks.generate import SUBJECTS, make_release, together
from benchmarks.table import Report, arguments, in_own_process, median, peak_memory

WAYS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "nf4": {"quantize": "nf4"},
    "packed": {"packing": True, "attention": "flash_attention_2", "max_tokens": 1024},
}
NEEDS = {"nf4": "bitsandbytes", "packed": "flash_attn"}
BATCH = 32
AT_ONCE = (1, 8, 64)
PATIENCE = 1200.0  # seconds for vLLM to load a model and to compile it


def main() -> int:
    options = arguments(
        "Tuning and serving on a CUDA GPU.",
        model="a base beside the small one: file://FOLDER or hf://ORG/NAME@REVISION",
        vllm_python="the Python of an environment that has vLLM",
    )
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return 0

    import torch

    if not torch.cuda.is_available():
        print("torch finds no CUDA GPU on this machine: there is nothing to measure here.", file=sys.stderr)
        return 2
    report = Report(
        f"{torch.cuda.get_device_name()}: LoRA, batches of {BATCH}, and vLLM",
        ["base", "what", "tokens/s", "peak GPU memory, MB", "last loss, or first token in ms"],
    )
    with tempfile.TemporaryDirectory() as name:
        state = os.environ.get("DRIFTLINE_STATE", name)
        for source in filter(None, (MODEL, options.model)):
            size = "small" if source == MODEL else "large"
            for way in WAYS:
                tell_tuning(report, source, size, way, 8 if options.quick else 30, state)
            if options.vllm_python:
                tell_serving(report, source, size, options.vllm_python, 3 if options.quick else 5, Path(state))
    if not options.vllm_python:
        report.notes.append("vLLM was not asked: name its environment's Python by --vllm-python")
    report.finish(["torch", "transformers", "peft", "trl"], options.json)
    return 0


def tell_tuning(report: Report, source: str, size: str, way: str, steps: int, state: str) -> None:
    from importlib.util import find_spec

    if find_spec(NEEDS.get(way, "torch")) is None:
        report.row(source, f"sft, {way}", f"not run: no {NEEDS[way]}", "", "")
        return
    try:
        found = in_own_process("benchmarks.gpu", source=source, way=way, steps=steps, state=state)
    except RuntimeError as error:
        report.row(source, f"sft, {way}", f"failed: {str(error).strip().splitlines()[-1][:200]}", "", "")
        return
    report.row(source, f"sft, {way}, {found['precision']}", found["speed"], found["peak"], round(found["loss"], 4))
    report.figure(f"sft_{size}_{way}_tokens_per_second", found["speed"])
    report.figure(f"sft_{size}_{way}_peak_mb", found["peak"])


def measure(source: str, way: str, steps: int, state: str) -> dict[str, Any]:
    """Tokens that our sft stage reads a second, from its second step on, and the most GPU memory that it held."""
    import torch

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    work, stage = work_of(steps, 1, Path(state), source, BATCH, **WAYS[way])
    ends, losses = run_stage_benchmark(way, work, stage, [])
    read = sum(each.tokens for each in work.examples(work.train))  # all of it once: packed into fewer steps, or not
    on_gpu = torch.cuda.is_available()
    return {
        "speed": read * (len(ends) - 1) / len(ends) / (ends[-1][0] - ends[0][0]),
        "peak": torch.cuda.max_memory_allocated() >> 20 if on_gpu else peak_memory(),
        "loss": losses[-1],
        "precision": work.precision,
    }


def tell_serving(report: Report, source: str, size: str, python: str, rounds: int, state: Path) -> None:
    from tasks.core.errors import DriftlineError
    from tasks.data.language.base_model import open_base
    from tasks.language.released_model import ReleasedModel
    from tasks.release.language import vllm_command
    from tasks.train.config import Serving

    length = 128
    try:
        base = open_base(model_of(source), Path(), state)
        serving = Serving(engine="vllm", weights="f16", slots=max(AT_ONCE), answer_tokens=16)
        with tempfile.TemporaryDirectory() as name:
            folder, _ = make_release(Path(name), base, serving)
            with vllm(python, vllm_command([folder]), Path(name) / "vllm.log") as (address, key):
                for count in AT_ONCE:
                    speeds, waits = [], []
                    for number in range(-1, rounds):  # the first only warms up
                        texts = [f"{number}.{i}: a story about {SUBJECTS[i % len(SUBJECTS)]}." for i in range(count)]
                        start = time.perf_counter()
                        heard = together(address, key, texts, length, ReleasedModel(folder).tag)
                        if number >= 0:
                            speeds.append(count * length / (time.perf_counter() - start))
                            waits.append(1000 * median([each.first for each in heard]))
                    report.row(source, f"vLLM with adapter, {count} at once", median(speeds), "", round(median(waits)))
                    report.figure(f"vllm_{size}_{count}_tokens_per_second", median(speeds))
                    report.figure(f"vllm_{size}_{count}_first_token_ms", median(waits))
    except (DriftlineError, RuntimeError, OSError) as error:
        report.row(source, "vLLM with adapter", f"failed: {' '.join(str(error).split())[:600]}", "", "")


@contextmanager
def vllm(python: str, command: list[str], log: Path) -> Iterator[tuple[str, str]]:
    """Run a vLLM server of another environment, by the command that a release gives; its address and key."""
    from services.serving.process import free_port, wait_until_ready
    from tasks.core.processes import with_parent_death_signal

    port, key = free_port(), secrets.token_hex(16)
    program = Path(python).absolute().with_name(command[0])  # not resolved: a link to Python leads out of its folder
    # the names of adapters come last, so that these flags stand before them
    whole = [str(program), *command[1:3], "--host", "127.0.0.1", "--port", str(port), *command[3:]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quiet = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent_death_signal(whole),
            stdout=output,
            stderr=output,
            env=environment | quiet,
            start_new_session=True,
        )
        try:
            wait_until_ready(f"{address}/health", "vLLM", log, PATIENCE, lambda: process.poll() is None)
            yield address, key
        finally:
            for end, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
                try:
                    os.killpg(process.pid, end)
                    process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
                except ProcessLookupError:
                    break


if __name__ == "__main__":
    sys.exit(main())
