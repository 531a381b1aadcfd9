"""Estimate the memory and time of a tuning before a model is loaded. A tuning that can't fit is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.core.errors import CaseError, Unavailable
from tasks.data.results import BaseModelFiles
from tasks.train.config import Stage, Tuning
from tasks.train.language.logprobs import MAX_SCORES
from tasks.train.language.model import Example, Precision
from tasks.train.language.resource_estimate import ResourceEstimate, estimate_resources
from tasks.train.language.stage_context import micro_batch, optimizer_steps
from tasks.train.language.throughput import VOCABULARY, seconds_of_layer

GB = 2**30
PROCESS_BYTES = 1.9 * GB  # Python with torch, transformers, trl and MLflow, and 1 GB that torch caches of batches
PARAMETER_BYTES = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.6}  # of the base
GENERATION_SPEED = 0.1  # relative to training; measured .07 in bf16 and .2 in fp32


class Estimate(Result):
    """Memory, tokens and time of a stage."""

    memory_gb: float
    available_gb: float
    tokens: int  # read and generated, over all steps
    minutes: float


@dataclass(frozen=True)
class TuningPlan:
    """The inputs of an estimate."""

    base: BaseModelFiles
    tuning: Tuning
    precision: Precision
    examples: Sequence[Example]

    @cached_property
    def shape(self) -> dict[str, int]:
        """Dimensions of the base model."""
        return _shape(self.base)

    @property
    def mean_tokens(self) -> float:
        return sum(each.tokens for each in self.examples) / len(self.examples)

    @property
    def trained_layers(self) -> int:
        return self.tuning.lora.layers or self.shape["layers"]


def check_fit(plan: TuningPlan, answer_tokens: int, preference_pairs: int = 0) -> dict[str, Estimate]:
    """Estimate each stage; warn when a time budget will cut one short. Only one layer is run, no model is loaded.

    preference_pairs: pairs that have a rejected answer. Raises: Unavailable when a stage would not fit into memory;
    CaseError when more layers are to be trained than the base has, or more processes are declared than there are GPUs.
    """
    tuning, layers = plan.tuning, plan.shape["layers"]
    if tuning.lora.layers and tuning.lora.layers > layers:
        raise CaseError(
            "The base has fewer layers than are to be trained.",
            where="train.lora.layers",
            found=str(tuning.lora.layers),
            allowed=f"1 to {layers}",
            todo="Lower it, or leave it out to train all layers.",
        )
    _check_processes(tuning.processes)
    available = tuning.memory_gb or available_memory()
    stages = {name: stage for name, stage in tuning.stages if stage is not None}
    demands = {
        name: estimate_resources(name, tuning, plan.examples, answer_tokens, preference_pairs) for name in stages
    }
    memory = {
        name: required_memory(plan, demands[name], micro_batch(stage, tuning.processes)) / GB
        for name, stage in stages.items()
    }
    for name, stage in stages.items():
        if memory[name] > available:
            raise Unavailable(
                f"The stage {name} of this tuning would not fit into memory; nothing was loaded.",
                where="train.memory_gb" if tuning.memory_gb else "free memory",
                found=f"{memory[name]:.1f} GB needed",
                allowed=f"{available:.1f} GB",
                todo=_suggest_change(plan, name, stage, demands[name], available),
            )
    speed, estimates = _operations_per_second(plan), {}
    for name, stage in stages.items():
        estimates[name] = estimate(plan, stage, demands[name], speed=speed, memory=memory[name], available=available)
        if stage.minutes and estimates[name].minutes > 1.5 * stage.minutes:
            _warn_of_budget(name, estimates[name].minutes, stage.minutes)
    total = sum(each.minutes for each in estimates.values())
    if tuning.budget and total > 1.5 * tuning.budget.seconds / 60:
        _warn_of_budget("the tuning", total, tuning.budget.seconds / 60)
    return estimates


def _check_processes(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise CaseError(
            "More processes are declared than there are GPUs.",
            where="train.processes",
            found=str(processes),
            allowed=f"1 to {torch.cuda.device_count()}",
            todo="Lower it: each process needs a GPU.",
        )


def _warn_of_budget(name: str, minutes: float, budget: float) -> None:
    warnings.warn(
        f"{name} would take about {minutes:.0f} minutes on this machine; its budget ends it after {budget:.3g}.",
        stacklevel=3,
    )


def estimate(
    plan: TuningPlan, stage: Stage, demand: ResourceEstimate, *, speed: float, memory: float, available: float
) -> Estimate:
    """Memory and time of a stage. speed: operations a second of this machine; memory, available: GB."""
    shape = plan.shape
    training = _operations_per_token(shape, plan.tuning, plan.examples)
    forward = 2 * shape["layers"] * sum(a * b for a, b in _linears(shape))
    examples = optimizer_steps(stage, demand.examples) * stage.batch
    read = examples * demand.sequences * plan.mean_tokens
    generated = examples * demand.written + demand.before
    operations = read * training + examples * demand.forwards * plan.mean_tokens * forward
    operations += generated * forward / GENERATION_SPEED
    return Estimate(
        memory_gb=round(memory, 2),
        available_gb=round(available, 2),
        tokens=round(read + generated),
        minutes=round(operations / (speed * plan.tuning.processes) / 60, 1),
    )


def required_memory(plan: TuningPlan, demand: ResourceEstimate, micro_batch_size: int) -> float:
    """Peak bytes: while the longest examples are trained on, or while base and adapter are merged in fp32.

    With GPUs: of one GPU, since each has its own process. Without: of all processes together.
    """
    import torch

    base, tuning, precision, shape = plan.base, plan.tuning, plan.precision, plan.shape
    value_bytes = 4.0 if precision == "fp32" else 2.6  # of an activation; norms and the residual stay fp32
    values = 14 * shape["hidden"] + 5 * shape["inner"] + 3 * shape["attended"]  # activations of a token and layer
    if tuning.attention == "eager":
        values += 3 * shape["heads"] * demand.longest
    rows = micro_batch_size * demand.sequences
    activations = rows * demand.longest * plan.trained_layers * values * value_bytes
    answer_tokens, vocabulary = rows * demand.answered, shape["vocabulary"]
    chunked_scores = answer_tokens * min(vocabulary, 32768)  # trl's chunk
    scores = max(min(answer_tokens * vocabulary, MAX_SCORES), chunked_scores) * 4 * 5
    adapters = _adapter_size(shape, tuning) * 16  # weight, gradient and AdamW's two moments, fp32
    adapters += _adapter_size(shape, tuning) * 4 * min(1, demand.forwards)  # the reference copy
    weights = base.parameters * PARAMETER_BYTES["nf4" if tuning.quantize == "nf4" else precision]
    weights += demand.models * base.parameters * PARAMETER_BYTES[precision]
    merging = base.parameters * 4 * 1.5
    processes = 1 if torch.cuda.is_available() else tuning.processes
    return max(processes * (PROCESS_BYTES + weights + adapters + activations + scores), PROCESS_BYTES + merging)


def available_memory() -> float:
    """Available GB: of the GPU if there is one; else of the system, within the container's limit."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0] / GB)
    free: int = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / GB


def _suggest_change(plan: TuningPlan, name: str, stage: Stage, demand: ResourceEstimate, available: float) -> str:
    """The smallest change with which the stage fits."""
    tuning = plan.tuning
    micro = micro_batch(stage, tuning.processes)
    smaller = [n for n in range(micro - 1, 0, -1) if stage.batch % (n * tuning.processes) == 0]
    changes = [(f"train.stages.{name}.micro_batch: {n}", plan, n) for n in smaller]
    if tuning.quantize == "none":
        quantized = replace(plan, tuning=tuning.model_copy(update={"quantize": "nf4"}))
        changes.append(("train.quantize: nf4 and micro_batch: 1", quantized, 1))
    for text, changed, n in changes:
        if required_memory(changed, demand, n) / GB <= available:
            return f"Set {text}: then it fits."
    return "No smaller batch would fit: take a smaller base, shorter pairs, or a machine with more memory."


def layers_of(base: BaseModelFiles) -> int:
    """How many layers a base model has."""
    return _shape(base)["layers"]


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


def _adapter_size(shape: dict[str, int], tuning: Tuning) -> int:
    return (tuning.lora.layers or shape["layers"]) * tuning.lora.rank * sum(a + b for a, b in _linears(shape))


def _operations_per_token(shape: dict[str, int], tuning: Tuning, examples: Sequence[Example]) -> float:
    """Operations a token, forward and backward: the frozen base, its adapters, attention, and the answers' scores."""
    read, answered = sum(e.tokens for e in examples), sum(len(e.completion) for e in examples)
    trained = tuning.lora.layers or shape["layers"]
    frozen = 2 * (shape["layers"] + trained) * sum(a * b for a, b in _linears(shape))
    attention = 4 * (shape["layers"] + 2 * trained) * shape["attended"] * read / len(examples)
    scores = 6 * shape["hidden"] * shape["vocabulary"] * answered / read
    return frozen + attention + scores + 6 * _adapter_size(shape, tuning)


def _operations_per_second(plan: TuningPlan) -> float:
    """The speed of this machine, measured on one layer that trains on a batch."""
    tuning, lora = plan.tuning, plan.tuning.lora
    rows, tokens = micro_batch(tuning.stages.sft, tuning.processes), round(plan.mean_tokens)
    layer = plan.shape | {"layers": 1, "vocabulary": VOCABULARY}
    one_layer = tuning.model_copy(update={"lora": lora.model_copy(update={"layers": 1})})
    operations = rows * tokens * _operations_per_token(layer, one_layer, plan.examples)
    return operations / seconds_of_layer(plan.base, tuning, plan.precision, rows=rows, tokens=tokens)
