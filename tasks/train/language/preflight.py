"""What a tuning will need, estimated before a model is loaded; what can't fit is refused, with what would."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.core.errors import CaseError, Unavailable
from tasks.data.results import BaseModelFiles
from tasks.train.config import Stage, Tuning
from tasks.train.language.logprobs import MOST
from tasks.train.language.model import Example, Precision
from tasks.train.language.resource_estimate import ResourceEstimate, estimate_resources
from tasks.train.language.stage_context import micro_batch, steps_of
from tasks.train.language.throughput import VOCABULARY, seconds_of_layer

GB = 2**30
PROGRAM = 1.9 * GB  # Python with torch, transformers, trl and MLflow, and 1 GB that torch keeps of batches by and by
WEIGHT = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.6}  # bytes a parameter of the base
WRITING = 0.1  # of the speed of learning, when a batch of answers is written: .07 measured in bf16, .2 in fp32


class Estimate(Result):
    """What a stage needs."""

    memory_gb: float
    available_gb: float
    tokens: int  # that all its steps read and write
    minutes: float


def check_fit(
    base: BaseModelFiles,
    tuning: Tuning,
    precision: Precision,
    examples: Sequence[Example],
    answer_tokens: int,
    preferring: int = 0,
) -> dict[str, Estimate]:
    """Estimate each stage; warn when a time budget will cut one short. One layer is tried, nothing is loaded.

    preferring: pairs that come with a rejected answer. Raises: Unavailable when a stage would not fit into memory;
    CaseError when more layers are to learn than there are, or more processes than GPUs.
    """
    shape = _shape(base)
    if tuning.lora.layers and tuning.lora.layers > shape["layers"]:
        raise CaseError(
            "More layers are to learn than the base has.",
            where="train.lora.layers",
            found=str(tuning.lora.layers),
            allowed=f"1 to {shape['layers']}",
            todo="Lower it, or leave it out: then all of them learn.",
        )
    _check_processes(tuning.processes)
    room = tuning.memory_gb or available_memory()
    stages = {name: stage for name, stage in tuning.stages if stage is not None}
    demands = {name: estimate_resources(name, tuning, examples, answer_tokens, preferring) for name in stages}
    memory = {
        name: required_memory(base, tuning, precision, demands[name], micro_batch(stage, tuning.processes)) / GB
        for name, stage in stages.items()
    }
    for name, stage in stages.items():
        if memory[name] > room:
            raise Unavailable(
                f"The stage {name} of this tuning would not fit into memory; nothing was loaded.",
                where="train.memory_gb" if tuning.memory_gb else "free memory",
                found=f"{memory[name]:.1f} GB needed",
                allowed=f"{room:.1f} GB",
                todo=_what_would(base, tuning, precision, name, stage, demands[name], room),
            )
    speed, found = _speed(base, tuning, precision, examples), {}
    for name, stage in stages.items():
        found[name] = estimate(base, tuning, examples, stage, demands[name], speed, memory[name], room)
        if stage.minutes and found[name].minutes > 1.5 * stage.minutes:
            _tell(name, found[name].minutes, stage.minutes)
    together = sum(each.minutes for each in found.values())
    if tuning.budget and together > 1.5 * tuning.budget.seconds / 60:
        _tell("the tuning", together, tuning.budget.seconds / 60)
    return found


def _check_processes(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise CaseError(
            "More processes are to learn than there are GPUs.",
            where="train.processes",
            found=str(processes),
            allowed=f"1 to {torch.cuda.device_count()}",
            todo="Lower it: each process needs a GPU.",
        )


def _tell(what: str, minutes: float, budget: float) -> None:
    warnings.warn(
        f"{what} would take about {minutes:.0f} minutes here: its budget ends it after {budget:.3g}.", stacklevel=3
    )


def estimate(
    base: BaseModelFiles,
    tuning: Tuning,
    examples: Sequence[Example],
    stage: Stage,
    demand: ResourceEstimate,
    speed: float,
    memory: float,
    room: float,
) -> Estimate:
    """Memory and time of a stage, given the machine's operations a second, and the GB that it takes and may take."""
    shape = _shape(base)
    usual = sum(each.tokens for each in examples) / len(examples)
    learning, passing = _flops(shape, tuning, examples), 2 * shape["layers"] * sum(a * b for a, b in _linears(shape))
    seen = steps_of(stage, demand.examples) * stage.batch
    read, written = seen * demand.sequences * usual, seen * demand.written + demand.before
    work = read * learning + seen * demand.forwards * usual * passing + written * passing / WRITING
    return Estimate(
        memory_gb=round(memory, 2),
        available_gb=round(room, 2),
        tokens=round(read + written),
        minutes=round(work / (speed * tuning.processes) / 60, 1),
    )


def required_memory(
    base: BaseModelFiles, tuning: Tuning, precision: Precision, demand: ResourceEstimate, micro: int
) -> float:
    """Bytes at the peak: while the longest examples are learnt from, or while base and adapter are merged in fp32.

    Of a GPU: of one of them, for each has a process of its own. Of a machine without: of all processes.
    """
    import torch

    shape = _shape(base)
    arithmetic = 4.0 if precision == "fp32" else 2.6  # bytes of a kept value; norms and the residual stay fp32
    kept = 14 * shape["hidden"] + 5 * shape["inner"] + 3 * shape["attended"]  # values a token and layer keeps
    if tuning.attention == "eager":
        kept += 3 * shape["heads"] * demand.longest
    rows = micro * demand.sequences
    activations = rows * demand.longest * _learning(shape, tuning) * kept * arithmetic
    answered, vocabulary = rows * demand.answered, shape["vocabulary"]
    scores = max(min(answered * vocabulary, MOST), answered * min(vocabulary, 32768)) * 4 * 5  # trl's parts are 32768
    adapters = _adapter_size(shape, tuning) * 16  # weight, gradient and AdamW's two moments, fp32
    adapters += _adapter_size(shape, tuning) * 4 * min(1, demand.forwards)  # as it was before
    weights = base.parameters * WEIGHT["nf4" if tuning.quantize == "nf4" else precision]
    weights += demand.models * base.parameters * WEIGHT[precision]
    merging = base.parameters * 4 * 1.5
    sharing = 1 if torch.cuda.is_available() else tuning.processes
    return max(sharing * (PROGRAM + weights + adapters + activations + scores), PROGRAM + merging)


def available_memory() -> float:
    """GB that may be taken: of the GPU where there is one; else of the system and of the container's limit."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / GB
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / GB


def _what_would(
    base: BaseModelFiles,
    tuning: Tuning,
    precision: Precision,
    name: str,
    stage: Stage,
    demand: ResourceEstimate,
    room: float,
) -> str:
    """The mildest change with which it fits."""
    micro = micro_batch(stage, tuning.processes)
    smaller = [n for n in range(micro - 1, 0, -1) if stage.batch % (n * tuning.processes) == 0]
    tries: list[tuple[str, Tuning, int]] = [(f"train.stages.{name}.micro_batch: {n}", tuning, n) for n in smaller]
    if tuning.quantize == "none":
        tries.append(("train.quantize: nf4 and micro_batch: 1", tuning.model_copy(update={"quantize": "nf4"}), 1))
    for text, changed, n in tries:
        if required_memory(base, changed, precision, demand, n) / GB <= room:
            return f"Set {text}: then it fits."
    return "No smaller batch would fit: take a smaller base, shorter pairs, or a machine with more memory."


def _shape(base: BaseModelFiles) -> dict[str, int]:
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "hidden": config["hidden_size"],
        "inner": config["intermediate_size"],
        "layers": config["num_hidden_layers"],
        "vocabulary": config["vocab_size"],
        "heads": heads,
        "attended": heads * head,
        "stored": (config.get("num_key_value_heads") or heads) * head,
    }


def _linears(shape: dict[str, int]) -> list[tuple[int, int]]:
    """Inputs and outputs of a layer's matrices."""
    hidden, inner, attended, stored = (shape[name] for name in ("hidden", "inner", "attended", "stored"))
    attention = [(hidden, attended), (hidden, stored), (hidden, stored), (attended, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


def _learning(shape: dict[str, int], tuning: Tuning) -> int:
    """Layers that learn."""
    return tuning.lora.layers or shape["layers"]


def _adapter_size(shape: dict[str, int], tuning: Tuning) -> int:
    return _learning(shape, tuning) * tuning.lora.rank * sum(a + b for a, b in _linears(shape))


def _flops(shape: dict[str, int], tuning: Tuning, examples: Sequence[Example]) -> float:
    """Operations a token, forward and backward: the frozen base, its adapters, attention, and the answers' scores."""
    read, answered = sum(e.tokens for e in examples), sum(len(e.completion) for e in examples)
    learning = _learning(shape, tuning)
    frozen = 2 * (shape["layers"] + learning) * sum(a * b for a, b in _linears(shape))
    attention = 4 * (shape["layers"] + 2 * learning) * shape["attended"] * read / len(examples)
    scores = 6 * shape["hidden"] * shape["vocabulary"] * answered / read
    return frozen + attention + scores + 6 * _adapter_size(shape, tuning)


def _speed(base: BaseModelFiles, tuning: Tuning, precision: Precision, examples: Sequence[Example]) -> float:
    """Operations a second of a layer that learns from a batch."""
    rows = micro_batch(tuning.stages.sft, tuning.processes)
    tokens = round(sum(each.tokens for each in examples) / len(examples))
    layer = _shape(base) | {"layers": 1, "vocabulary": VOCABULARY}
    learning = _flops(layer, tuning.model_copy(update={"lora": tuning.lora.model_copy(update={"layers": 1})}), examples)
    return rows * tokens * learning / seconds_of_layer(base, tuning, precision, rows, tokens)
